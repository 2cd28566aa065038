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
        with pytest.raises(ValueError, match="n_steps=3 does not apply to this .*, which has one answer"): lift(n_steps=3)


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
    experiment = Experiment(preset=preset, model=model, channels=8, epochs=1, occ="random", hypotheses=1 if model == "tcd-imputation" else 2,
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


# --- the page, from rows that are made up

def page(folder):
    "What the page of peers shows for a folder of rows, cell by cell, without its kernel."
    import ast
    shown, names = [], {}
    for cell in json.loads((ROOT/"nbs/peers.ipynb").read_text())["cells"]:
        if cell["cell_type"] != "code": continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "peers.ipynb", "exec"), names)
        if "hypotheses" in names and "FOLDER" not in names: names["folder"] = str(folder)
        if last is not None: shown.append(eval(compile(ast.Expression(last.value), "peers.ipynb", "eval"), names).data)
    return shown

def made_up(folder, model="d3dp", seed=0, offset=0., n_frames=27, dataset="bandai", hypotheses=5, windows=range(40), **more):
    "A row: 40 windows of 10 recordings whose error differs from one to the other."
    error = lambda x: [round(60. + 5*(w // 4) + .1*(w % 4) + x, 3) for w in windows]
    figures = {"P-Agg": 0, "J-Agg, estimated root": 1, "J-Agg, true root": -1, "J-Best": -4}
    mean = lambda name: float(np.mean(error(figures[name] + offset)))
    measures = dict.fromkeys(("mpjpe", "symmetry_gap", "segment_std", "mpjve"), 12.5)
    row = dict(run=f"{dataset}-small-{model}-{n_frames}-s{seed}-{offset:g}", setting="preset small", model=model, dataset=dataset, preset="small", occ="none", seed=seed,
               n_frames=n_frames, data="0123456789abcdef", hypotheses=hypotheses, energy_score=51.5, ms=123., parameters=1_234_567, steps=4000, clips_seen=128_000,
               backbone_seen=0, hours=1.5, occlusions={o: measures for o in ("none", "random")}, recordings=[f"S1/walk {w // 4}" for w in windows], windows=list(windows),
               groups={"deployable": {"P-Agg": mean("P-Agg"), "J-Agg": mean("J-Agg, estimated root")}, "needs the true root": {"J-Agg": mean("J-Agg, true root")},
                       "oracle": {"P-Best": 70., "P-Best, clip by clip": 69., "J-Best": mean("J-Best")}},
               each={name: error(x + offset) for name, x in figures.items()}) | more
    (folder/f"{row['run']}.json").write_text(json.dumps(row))
    return row

def test_the_page_of_peers_without_rows(tmp_path):
    "It says that there is none, what is still to be run, and no figure."
    inventory, *tables, sentences = page(tmp_path)
    assert "No run has been examined yet" in inventory and "Not run yet on bandai, preset small" in inventory and "on cmu" in inventory
    assert tables == ["(no row yet)"]*4
    assert sentences.count("Not run yet") == 3 and "needs D3DP and DiffHPE-Wrapper" in sentences and " mm " not in sentences

def test_the_page_of_peers_with_one_row(tmp_path):
    "One row for the system that there is; its three groups apart; intervals over recordings; no sentence about two systems."
    made_up(tmp_path)
    inventory, accuracy, coherence, occluded, cost, sentences = page(tmp_path)
    assert "| D3DP | bandai, small | 0 | preset small | 128,000 | 40 |" in inventory and "D3DP, 81 frames" in inventory.split("Not run yet on bandai")[1]
    header, _, row = accuracy.splitlines()
    assert [c.split(":")[0].strip() for c in header.split("|")[2:-1]] == ["deployable"]*2 + ["TRUE ROOT"] + ["ORACLE"]*2
    assert row == "| D3DP (1 seed) | 82.7 | 83.7 | 81.7 | 69.0 | 78.7 |"
    assert "51.5" in coherence and "| 12.5 | 12.5 |  |  |  |" in occluded and "| 1,234,567 | 128,000 |  | 4,000 | 1.5 | 5 | 123 |" in cost
    first, second, third = sentences.splitlines()
    assert "is 4.0 mm lower (4.0 to 4.0; one seed) on bandai than with the mean" in first and "is 2.0 mm lower (2.0 to 2.0; one seed)" in second
    assert third == "3. (Not run yet: this sentence needs D3DP and DiffHPE-Wrapper.)"

def test_the_page_of_peers_with_several_rows(tmp_path):
    "Seeds are averaged, with their interval; both data sets stand in a sentence; an answer alone has no choice; the longer windows have rows of their own."
    for seed, offset in enumerate((0., 1., 2.)): made_up(tmp_path, seed=seed, offset=offset)
    noise = np.repeat(np.random.default_rng(0).normal(0, 6, 10), 4)
    for seed in range(3):                                             # the Wrapper: 3 mm more, but other from recording to recording
        row = made_up(tmp_path, "diffhpe-wrapper", seed=seed, offset=4., backbone_seen=64_000)
        row["each"]["P-Agg"] = [float(e + n) for e, n in zip(row["each"]["P-Agg"], noise - noise.mean())]
        (tmp_path/f"{row['run']}.json").write_text(json.dumps(row))
    made_up(tmp_path, "mixste", hypotheses=1); made_up(tmp_path, n_frames=81, occ="random"); made_up(tmp_path, dataset="cmu")
    inventory, accuracy, _, _, cost, sentences = page(tmp_path)
    assert "| D3DP | bandai, small | 0, 1, 2 |" in inventory and "D3DP, 81 frames, trained with random" in inventory
    bandai, cmu = accuracy.split("\n\n")
    assert "| D3DP (3 seeds) | 83.7 ± 2.5 | 84.7 ± 2.5 | 82.7 ± 2.5 |" in bandai and "| MixSTE (1 seed) | 82.7 |  |  |  |  |" in bandai
    assert "D3DP (1 seed)" in cmu and "MixSTE" not in cmu and "64,000" in cost
    first, _, third = sentences.splitlines()
    assert "4.0 mm lower (4.0 to 4.0; over 3 seeds ± 0.0) on bandai and 4.0 mm lower (4.0 to 4.0; one seed) on cmu" in first
    low, high = (float(x) for x in third.split("3.0 mm lower (")[1].split(";")[0].split(" to "))
    wide = 1.96*noise[::4].std()/10**.5                               # recordings, not windows, are what is drawn
    assert .6*wide < 3 - low < 1.3*wide and .6*wide < high - 3 < 1.3*wide and "over 3 seeds ± 2.5" in third

@pytest.mark.parametrize("wrong, says", [(dict(offset=3.), "are one model, data set and seed twice"), (dict(seed=1, windows=range(20)), "saw other test windows"), (dict(seed=1, setting="epochs 3"), "have different settings"),
                                         (dict(model="tcd", data="f"*16), "saw other test windows")])
def test_rows_that_cannot_stand_together(tmp_path, wrong, says):
    made_up(tmp_path); made_up(tmp_path, **wrong)
    with pytest.raises(ValueError, match=says): page(tmp_path)
