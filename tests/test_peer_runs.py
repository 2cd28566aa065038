"The paper's peers as a user starts them, and their releases' settings."
import json
import subprocess
import sys

import numpy as np
import pytest
from test_run_experiment import ROOT, papermill, summary

def lifted_by(folder, several):
    "Hypotheses of a walk from the weights of a run: as many as are asked for, the same from the same seed, other ones from another."
    from diffhpe.lifter import Lifter
    from diffhpe.trajectory import Intrinsics
    lens, pixels = Intrinsics.from_field_of_view((1000, 1000)), 500 + 100*np.random.default_rng(0).normal(size=(17, 2)) + np.arange(40.)[:, None, None]
    lifter, how = Lifter.load(folder), dict(hypotheses=3) | (dict(n_steps=2) if several else {})
    def lift(**kwargs): return lifter.lift(pixels, lens, **(how | kwargs))
    first, again, other = lift(), lift(), lift(seed=1)
    assert first.shape == (3 if several else 1, 40, 17, 3) and np.isfinite(first).all() and np.array_equal(first, again)
    assert np.array_equal(first, other) != several
    if several: assert (first[:, :, 1:].std(0) > 0).all()
    else:
        with pytest.raises(ValueError, match="n_steps=3 means nothing to this .*, which has one answer"): lift(n_steps=3)


@pytest.mark.parametrize("model, given", [("d3dp", dict(n_frames=81, n_steps=2)), ("diffpose", {}),
                                          ("diffpose-release", {}), ("tcd", dict(n_steps=4, sampler="ddim")),
                                          ("tcd-imputation", dict(n_steps=2, sampler="ddim", hypotheses=2))])
def test_the_paper_s_peers(model, given, tmp_path):
    "Each of them is trained, tested and written down by the command that does so for DiffHPE."
    from diffhpe.checkpoints import load_checkpoint, model_name
    run = papermill(tmp_path, model=model, occ="random", test_occ="none,random", **given)
    assert run.returncode == 0, run.stderr[-2000:]
    found, folder = summary(tmp_path)
    backbone = ["mixste"]*model.startswith("diffpose")
    assert found["finished"] and list(found["training"]) == [*backbone, model]
    for by_label in found["metrics"].values():
        assert {*backbone, model, "ridge regression"} <= set(by_label) and all(np.isfinite(v) for v in by_label[model].values())
    best = load_checkpoint(folder.parent/"trainings"/found["training"][model]["name"]/"best_mpjpe")
    assert model_name(best) == model and best.config["n_frames"] == given.get("n_frames", 27)
    lifted_by(folder.parent/"trainings"/found["training"][model]["name"]/"best_mpjpe", model != "diffpose-release")
    if model != "d3dp": return
    again = papermill(tmp_path, model=model, occ="random", test_occ="none,random", **given)       # found, not trained
    assert again.returncode == 0 and summary(tmp_path)[0]["metrics"] == found["metrics"]
    exam = subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT/"nbs/peers.ipynb"), str(tmp_path/"peers.ipynb"),
                           "-p", "run", str(folder), "-p", "folder", str(tmp_path/"rows"), "-p", "windows", "4"],
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert exam.returncode == 0, exam.stderr[-2000:]
    row = json.loads(next((tmp_path/"rows").glob("*.json")).read_text())
    groups = row["groups"]
    assert row["model"] == "d3dp" and list(groups) == ["deployable", "needs the true root", "oracle"]
    assert groups["oracle"]["J-Best"] <= min(*groups["deployable"].values(), *groups["needs the true root"].values())


RELEASED = [("mixste-paper", "mixste"), ("d3dp-paper", "d3dp"), ("diffpose-paper", "diffpose"),
            ("diffpose-paper", "diffpose-release"), ("tcd-paper", "tcd"), ("tcd-paper", "tcd-imputation")]

@pytest.mark.parametrize("preset, model", RELEASED)
def test_released_settings_at_a_tiny_width(preset, model, tmp_path):
    "The presets of the releases, with all their depth and frames and a few channels, through the code of every training."
    from dataclasses import replace
    from diffhpe.config import PRESETS, Experiment
    from diffhpe.datasets import load_dataset
    from diffhpe.experiments import evaluate_all, run_training, trainings
    data = load_dataset("synthetic", max_clips=4)
    short = lambda clip: replace(clip, keypoints=clip.keypoints[:30], poses=clip.poses[:30], root=clip.root[:30])
    train = data.train[:2] if model == "tcd-imputation" else data.train          # the slowest by far
    data = replace(data, train=tuple(map(short, train)), test=tuple(map(short, data.test[:1])))
    experiment = Experiment(preset=preset, model=model, channels=8, epochs=1, occ="random", hypotheses=2,
                            **(dict(sampler="ddim", n_steps=1) if preset == "tcd-paper" else {}))
    done = {}
    for training in trainings(experiment):
        done[training.label] = run_training(experiment, training, done, data, tmp_path, progress_bar=False)
        assert done[training.label].finished
    network = done[model].model
    assert network.config["n_frames"] == (27 if preset == "tcd-paper" else 243)
    sizes = {k: v for k, v in PRESETS[preset].sizes(model).items() if k != "channels"}
    assert {k: network.config[k] for k in sizes} == sizes
    found = evaluate_all(experiment, {k: f.model for k, f in done.items()}, data, progress_bar=False)["random"]
    assert np.isfinite(found[model]["mpjpe"])
