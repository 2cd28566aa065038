"The experiment as a user starts it: papermill on the notebook, right and wrong."
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def papermill(folder, cwd=ROOT, **parameters):
    "Run the notebook at preset smoke, with its results below `folder`."
    options = [a for name, value in (dict(preset="smoke", results_dir=folder/"results") | parameters).items()
               for a in ("-p", name, str(value))]
    return subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT/"nbs/run_experiment.ipynb"),
                           str(folder/"run.ipynb"), *options],
                          cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def summary(folder):
    [path] = (folder/"results").glob("*/metrics.json")
    return json.loads(path.read_text()), path.parent


FEW_STEPS = dict(sampler="fast", n_steps=5) # `make test` runs the notebook with the paper's sampler, too

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "One run of all three models, left alone."
    folder = tmp_path_factory.mktemp("whole")
    run = papermill(folder, occ="consecutive", test_occ="none,random", **FEW_STEPS)
    assert run.returncode == 0, run.stderr[-2000:]
    return summary(folder)


def test_the_parameters_cell_is_that_of_the_experiment():
    from ast import literal_eval
    from dataclasses import fields
    import papermill
    from diffhpe.config import Experiment
    cell = papermill.inspect_notebook(str(ROOT/"nbs/run_experiment.ipynb"))
    assert {name: literal_eval(p["default"])
            for name, p in cell.items()} == {f.name: f.default for f in fields(Experiment)}


CURRICULUM = "curriculum; epochs mixste 6, diffhpe-2d 9, diffhpe-wrapper 6; preset demo"
SETTINGS = {  # run → its setting in the tables
    "bandai-demo-all-none-s0-df4900": CURRICULUM,
    "bandai-demo-mixste-none-s0-559708": f"{CURRICULUM}; recipe mixste",
    "bandai-small-gcn-none-s0-eb026d": "n_steps 10; preset small; sampler ddim",
    "cmu-demo-all-consecutive_frames-s0-f8c6b5": "batch_size 32; epochs 15; learning_rate 0.0015; preset demo",
    "synthetic+cmu-demo-diffhpe-wrapper-mixed-s0-cb337d":
        "batch_size mixste 16, diffhpe-wrapper 32; epochs mixste 12, diffhpe-wrapper 12; "
        "learning_rate mixste 0.0006, diffhpe-wrapper 0.003; preset demo",
    "synthetic-demo-all-consecutive_frames-s0-dd15fc": "from_scratch; preset demo",
    "synthetic-demo-all-consecutive_frames-s0-ffd396": "preset demo",
    "synthetic-demo-diffhpe-2d-consecutive_frames-s0-5dc9b7":
        "batch_size 32; epochs 50; learning_rate 0.004; preset demo"}


def test_results_keep_their_names():
    "What the runs in results/ were given still makes their ids and their settings, whatever parameters came later."
    from dataclasses import asdict
    from diffhpe.config import Experiment
    from diffhpe.results import run_id
    from diffhpe.summary import setting_of
    runs = {p.parent.name: json.loads(p.read_text()) for p in (ROOT/"results").glob("*/metrics.json")}
    for name, run in runs.items():
        experiment = Experiment(**run["experiment"])
        read = json.loads(json.dumps(asdict(experiment)))
        assert name == run["run"] == run_id(experiment)
        assert {k: read[k] for k in run["experiment"]} == run["experiment"]
    known = {name: text for name, text in SETTINGS.items() if name in runs}
    assert {name: setting_of(runs[name]["experiment"]) for name in known} == known


def test_run_folder(whole):
    found, folder = whole
    assert {"config.json", "metrics.json", "per_action.csv", "history.csv", "history.png", "clip.png",
            "clip.gif"} <= {f.name for f in folder.iterdir()}
    assert found["finished"] and found["experiment"]["occ"] == "consecutive_frames" and found["experiment"]["seed"] == 0
    assert len(found["data"]["checksum"]) == 64 and found["environment"]["torch"] and found["wall_time"] > 0
    assert list(found["metrics"]) == ["none", "random"]
    for occlusion, by_label in found["metrics"].items():
        bridged = ["ridge regression, gaps bridged"]*(occlusion != "none")
        assert list(by_label) == ["mean pose", "ridge regression", "mixste", "diffhpe-2d", "diffhpe-wrapper"] + bridged
        assert all(np.isfinite(v) for row in by_label.values() for v in row.values())
    rows = list(csv.DictReader((folder/"per_action.csv").open()))
    of = [float(r["mpjpe"]) for r in rows if (r["occlusion"], r["model"], r["seen"]) == ("random", "mixste", "True")]
    assert np.isclose(np.mean(of), found["metrics"]["random"]["mixste"]["mpjpe"])                # the mean over actions
    assert {r["model"]
            for r in csv.DictReader((folder/"history.csv").open())} == {"mixste", "diffhpe-2d", "diffhpe-wrapper"}


def test_a_run_in_pieces_gives_the_same_numbers(whole, tmp_path):
    "Stopped by `minutes`, started again from another folder: to the last bit what a run in one go gives."
    for attempt, minutes in enumerate((0, 1e-5, 60)):
        run = papermill(tmp_path, cwd=ROOT/"nbs" if attempt else tmp_path, occ="consecutive", test_occ="[none, random]",
                        minutes=minutes, **FEW_STEPS)
        assert run.returncode == 0, run.stderr[-2000:]
        found, _ = summary(tmp_path)
        assert found["finished"] == (attempt == 2)
    assert found["metrics"] == whole[0]["metrics"]


def test_the_improved_recipe_and_the_controls(tmp_path):
    "All five models, what the recipe asks for in their files, and a choice that overrides it."
    run = papermill(tmp_path, recipe="improved", model="every", occ="random", sampler="ddim", n_steps=4,
                    visible=True, mirror=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found, folder = summary(tmp_path)
    trained = {m: folder.parent/"trainings"/found["training"][m]["name"]
               for m in ("mixste", "diffhpe-2d", "diffhpe-wrapper", "gcn", "refiner")}
    assert set(trained) < set(found["metrics"]["random"])
    for model, path in trained.items():
        config = json.loads((path/"best_loss/config.json").read_text())
        assert config["model"] == model and config["arguments"]["visible"]
        assert config["arguments"].get("target") == ("x0" if model.startswith("diffhpe") else None)
        assert ("linear_start" in config["arguments"]) == (model in ("mixste", "diffhpe-2d", "gcn"))
    again = papermill(tmp_path, recipe="improved", model="diffhpe-wrapper", backbone="gcn", occ="random",
                      sampler="ddim", n_steps=4, visible=True, mirror=False)
    assert again.returncode == 0, again.stderr[-2000:]
    others = [json.loads(p.read_text()) for p in (tmp_path/"results").glob("*/metrics.json") if p.parent != folder]
    assert others[0]["training"]["gcn"]["name"] == trained["gcn"].name and "mixste" not in others[0]["training"]


def motion(n_frames=60, n_joints=17):
    "A few embedded recordings of two people; with 32 joints, in the places that Human3.6M's files keep the 17 at."
    from diffhpe.skeleton import H36M_32_TO_17
    from diffhpe.synthetic import synthetic_motion
    def widen(poses):
        wide = np.zeros((len(poses), n_joints, 3), "f4")
        wide[:, list(H36M_32_TO_17) if n_joints == 32 else slice(None)] = poses[:, :n_joints]
        return wide
    people = synthetic_motion(frames=n_frames, repetitions=1, subjects=("S1", "S9"))
    return {s: {a: widen(p) for a, p in list(actions.items())[:6]} for s, actions in people.items()}


def test_real_motion_in_the_community_s_layout(tmp_path):
    "A pickled npz of 32 joints, and its own name as the dataset."
    np.savez(tmp_path/"data_3d_mine.npz", positions_3d=np.array(motion(n_joints=32), dtype=object))
    run = papermill(tmp_path, cwd=tmp_path, dataset="mine", data_dir=tmp_path, model="mixste", occ="random")
    assert run.returncode == 0, run.stderr[-2000:]
    found, _ = summary(tmp_path)
    assert found["data"]["name"] == "mine" and found["data"]["description"].startswith("real motion")


@pytest.mark.parametrize("parameters, words", [
    (dict(occ="consecutivly"), ["consecutivly", "consecutive_frames", "random_leg_arm"]),
    (dict(ocx="random"), ["there is no parameter 'ocx'", "backbone_occ"]),
    (dict(dataset="cmu", data_dir="nowhere"), ["data_3d_cmu.npz", "nowhere"]),
], ids=["wrong value", "misspelt name", "missing file"])
def test_a_mistake_stops_the_run_early(tmp_path, parameters, words):
    run = papermill(tmp_path, **parameters)
    assert run.returncode != 0
    message = run.stderr.strip().splitlines()[-1]
    assert all(w in message for w in words), message
    assert not (tmp_path/"results").exists()                                                     # nothing half-written


class Attack:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f"touch '{self.path}'",)


def npz(path, positions, **more): np.savez(path, positions_3d=np.array(positions, dtype=object), **more)

def with_nan():
    positions = motion(); positions["S9"]["Eating 1"][7, 2, 1] = np.nan
    return positions

@pytest.mark.parametrize("positions, words", [
    (motion(n_joints=15), ["data_3d_bad.npz", "S1", "Directions 1", "15", "17", "32"]),
    (with_nan(), ["data_3d_bad.npz", "S9", "Eating 1", "7"]),
    (motion(n_frames=20), ["S1/Directions 1", "20 frames", "27"]),
    ({s: {a: p*1000 for a, p in actions.items()} for s, actions in motion().items()},
     ["data_3d_bad.npz", "Directions 1", "millimetres"]),
], ids=["joints", "nan", "short clips", "millimetres"])
def test_bad_motion_is_refused_by_name(tmp_path, positions, words):
    from diffhpe.clips import WindowSet
    from diffhpe.datasets import load_dataset
    npz(tmp_path/"data_3d_bad.npz", positions)
    with pytest.raises(ValueError) as e: WindowSet(load_dataset("bad", tmp_path).train, 27)
    assert all(w in str(e.value) for w in words), str(e.value)


def test_a_file_that_wants_to_run_something_is_refused_and_has_not_run(tmp_path):
    from diffhpe.datasets import load_dataset
    npz(tmp_path/"data_3d_bad.npz", {"S1": {"Walking 0": Attack(tmp_path/"ran")}})
    with pytest.raises(ValueError, match="system") as e: load_dataset("bad", tmp_path)
    assert "data_3d_bad.npz" in str(e.value) and not (tmp_path/"ran").exists()
    (tmp_path/"data_3d_bad.npz").write_bytes(b"this is no archive")
    with pytest.raises(ValueError, match="data_3d_bad.npz"): load_dataset("bad", tmp_path)


def test_keypoints_and_checkpoints_of_another_size(tmp_path):
    import torch
    from diffhpe.checkpoints import load_checkpoint, save_checkpoint
    from diffhpe.models import DiffHPE
    model = DiffHPE("2d", n_frames=9, channels=8, n_blocks=1)
    keypoints = torch.zeros(1, 9, 17, 2); keypoints[0, 2, 16] = torch.nan
    with pytest.raises(ValueError, match="RWrist"): model.lift(keypoints)
    with pytest.raises(ValueError, match="16 joints; this model takes 17"): model.lift(keypoints[:, :, :16])
    save_checkpoint(model, tmp_path/"small")
    config = tmp_path/"small/config.json"
    config.write_text(config.read_text().replace('"channels": 8', '"channels": 16'))
    with pytest.raises(ValueError,
                       match=r"small.*another size: denoiser.input.weight is \(8, 5\), and a DiffHPE needs \(16, 5\)"):
        load_checkpoint(tmp_path/"small")
