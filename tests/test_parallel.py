"""Two processes that share every batch learn what one process learns. This file is a test, and the program that
`torchrun` starts in each process."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
QUIET = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, env=QUIET, timeout=300, **options)


def lively(model):
    "No scale, shift or weight of the output at its start, where gradients before it would be zero."
    g = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.weight, .5, 1.5, generator=g); torch.nn.init.normal_(m.bias, std=.1, generator=g)
    if hasattr(model, "denoiser"): torch.nn.init.normal_(model.denoiser.output2.weight, std=.3, generator=g)
    return model


def models():
    from diffhpe.mixste import MixSTE
    from diffhpe.models import DiffHPE
    torch.manual_seed(0)
    small, mixste = (dict(n_frames=9, channels=8, n_blocks=2, dropout=0.),
                     lambda: MixSTE(n_frames=9, channels=8, depth=2, n_heads=2, drop_path=0.))
    return {"mixste": mixste(), "2d": lively(DiffHPE("2d", **small)),
            "wrapper": lively(DiffHPE("mixste", mixste(), **small))}


def one_step(dtype, n_clips):
    "Loss, gradients and what the model is after one step, of each model."
    from diffhpe.optimisation import train_step
    g, found = torch.Generator().manual_seed(n_clips), {}
    keypoints, poses = (torch.randn(n_clips, 9, 17, 2, generator=g).to(dtype),
                        torch.randn(n_clips, 9, 17, 3, generator=g).to(dtype) + 2)
    for name, model in models().items():
        model.to(dtype)
        loss = train_step(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], .1), keypoints,
                          poses, seed=3, step=5)
        found[name] = dict(loss=loss.double(), state={k: v.clone() for k, v in model.state_dict().items()},
                           gradients={k: p.grad for k, p in model.named_parameters() if p.requires_grad})
    return found


# 5 clips: one process has two, the other three; 1 clip: both have it
CASES = [(torch.float64, 4), (torch.float64, 5), (torch.float64, 1), (torch.float32, 5)]


def clips(n, n_frames):
    from diffhpe.camera import h36m_cameras
    from diffhpe.virtual import virtual_clips
    rng = np.random.default_rng(n)
    motion = {"S1": {f"Walking {i}": np.array([0, 0, 1.]) + rng.normal(0, .3, (1, 17, 3))
                     + rng.normal(0, .01, (n_frames, 17, 3)).cumsum(0) for i in range(n)}}
    return virtual_clips(motion, h36m_cameras("S9")[:1])


def few_epochs(folder, dropout=0., **options):
    """A training of three epochs of three batches, of 7, 7 and 1 clips, that validates and lowers its learning rate.
    In float64: in float32 Adam makes steps of the rounding errors that a bias before a normalisation has for gradient.
    """
    from diffhpe.clips import WindowSet
    from diffhpe.recipes import FitConfig
    from diffhpe.training import fit
    model, sets = models()["2d"].double(), [WindowSet(clips(*n), 9, "random") for n in ((5, 30), (2, 20))]
    for w in sets: w.keypoints, w.poses = w.keypoints.astype("f8"), w.poses.astype("f8")
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout): m.p = dropout
    config = FitConfig(1e-3, 7, 3, dropout, validate_every=1, mpjpe_every=2, schedule="exponential")
    return fit(model, *sets, config, folder, seed=2, progress_bar=False, **options)


def summary(fitted):
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in fitted.progress.history]
    return dict(history=rows, step=fitted.progress.step, finished=fitted.finished, rate=fitted.progress.learning_rate,
                state=dict(fitted.model.state_dict()))


def program(folder):
    "What each of two processes does."
    from diffhpe.models import DiffHPE
    from diffhpe.parallel import my_share, start_processes, wait_for_all, world
    start_processes("cpu")
    torch.set_num_threads(1)
    rank, size = world()
    found = {str(case): one_step(*case) for case in CASES}
    found["fit"] = summary(few_epochs(folder/"fit"))
    # the first one's decision
    found["stopped"] = summary(few_epochs(folder/"pieces", minutes=0. if rank == 0 else 9., checkpoint_seconds=0))
    found["continued"] = summary(few_epochs(folder/"pieces", minutes=9. if rank == 0 else 0., checkpoint_seconds=0))
    heard = []
    draw = DiffHPE.loss
    DiffHPE.loss = lambda *a: (heard.append(torch.rand(1).item()), draw(*a))[1]  # the stream that dropout draws from
    found["dropout"] = summary(few_epochs(folder/"dropout", dropout=.3)); found["heard"] = heard
    try: my_share(1)
    except ValueError as e: found["error"] = str(e)
    torch.save(found, folder/f"{rank}.pt")
    wait_for_all()
    assert size == 2


def read(path): return torch.load(path, weights_only=True)


def far(a, b):
    """Largest difference of two families of tensors, relative to each one's largest number; a bias before a
    normalisation has no gradient but rounding errors, so for it to the largest of all."""
    assert a.keys() == b.keys()
    largest = {k: t.abs().max().item() for k, t in b.items()}
    largest |= {k: max(largest.values()) for k in b if k.endswith(("_layer.conv.bias", "non_local.out.bias"))}
    return max((a[k].double() - b[k].double()).abs().max().item()/largest[k] for k in b if a[k].any() or b[k].any())


def test_two_processes_are_one(tmp_path):
    torch.set_num_threads(1)
    run = torchrun(__file__, tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (read(tmp_path/f"{rank}.pt") for rank in range(2))
    for dtype, n in CASES:
        # float32: rounding, largest where a gradient is a thousandth of the others
        alone, tolerance = one_step(dtype, n), 1e-9 if dtype == torch.float64 else 1e-4
        for name, expected in alone.items():
            got, other = first[str((dtype, n))][name], second[str((dtype, n))][name]
            assert abs(got["loss"] - expected["loss"]) <= tolerance*expected["loss"]
            assert all(g.abs().max() > 0 for g in expected["gradients"].values())
            for part in ("gradients", "state"):  # the state holds the running statistics
                distance = far(got[part], expected[part])
                print(f"{name}, {n} clips, {dtype}, {part}: {distance:.1e}")
                assert distance <= tolerance, (name, n, dtype, part, distance)
                # and both have the same
                assert all(torch.equal(a, b) for a, b in zip(got[part].values(), other[part].values()))

    alone = summary(few_epochs(tmp_path/"alone"))
    assert len({r["learning_rate"] for r in alone["history"]} | {alone["rate"]}) > 1        # the schedule had its say
    for name in ("fit", "continued"):
        for got in (first[name], second[name]):
            assert got["step"] == alone["step"] and got["finished"] and got["rate"] == alone["rate"]
            assert far(got["state"], alone["state"]) <= 1e-5, far(got["state"], alone["state"])
            for a, b in zip(got["history"], alone["history"], strict=True):
                for key in b: assert a[key] == b[key] or abs(a[key] - b[key]) <= 1e-5*abs(b[key]), (key, a, b)
        assert all(torch.equal(a, b) for a, b in zip(first[name]["state"].values(), second[name]["state"].values()))
    assert [f["stopped"]["finished"] for f in (first, second)] == [False, False] and first["stopped"]["step"] == 0
    # other masks in each process, but for the three batches that both compute
    assert len(set(first["heard"]) & set(second["heard"])) == 3
    assert all(torch.equal(a, b)
               for a, b in zip(first["dropout"]["state"].values(), second["dropout"]["state"].values()))
    assert "a batch of 1 clips cannot be shared by 2 processes" in first["error"]


def metrics(folder):
    [path] = (folder/"results").glob("*/metrics.json")
    return json.loads(path.read_text())


def test_an_experiment_with_torchrun(tmp_path):
    "The notebook as a user starts it, with and without: one folder of results, one output notebook, the same numbers."
    parameters = [a for pair in dict(preset="smoke", dropout=0, model="diffhpe-2d", hypotheses=2, sampler="fast",
                                     n_steps=5, device="cpu").items() for a in ("-p", *map(str, pair))]
    notebook = str(ROOT/"nbs/run_experiment.ipynb")
    for name, start in (("one", lambda *a: subprocess.run([sys.executable, "-m", "diffhpe.parallel", *a],
                                                          stdin=subprocess.DEVNULL, capture_output=True,
                                                          text=True, env=QUIET)),
                        ("two", lambda *a: torchrun("-m", "diffhpe.parallel", *a))):
        (tmp_path/name).mkdir()
        run = start(notebook, str(tmp_path/name/"run.ipynb"), "-p", "results_dir",
                    str(tmp_path/name/"results"), *parameters)
        assert run.returncode == 0, run.stderr[-3000:]
        assert {f.name for f in (tmp_path/name).iterdir()} == {"run.ipynb", "results"}
    one, two = metrics(tmp_path/"one"), metrics(tmp_path/"two")
    assert two["finished"] and one["run"] == two["run"]
    for occlusion, by_label in one["metrics"].items():
        for label, row in by_label.items():
            for key, value in row.items():
                assert abs(two["metrics"][occlusion][label][key] - value) <= 1e-3, (label, key)
    outputs = json.loads((tmp_path/"two/run.ipynb").read_text())["cells"]
    assert sum(len(c.get("outputs", [])) > 0 for c in outputs) >= 5  # the first process ran all cells


def test_one_failing_process_ends_all(tmp_path):
    "If the first process fails alone, the other, who waits for it, is ended too."
    program = ("import os, diffhpe.parallel as p; p.start_processes('cpu')\nif p.world()[0] == 0: "
               "raise ValueError('the first is gone')\np.of_first(0)")
    (tmp_path/"program.py").write_text(program)
    run = torchrun(tmp_path/"program.py")
    assert run.returncode != 0 and "the first is gone" in run.stderr


def test_a_killed_training_of_two_processes_ends_as_if_it_never_was(tmp_path):
    "The short form of `python tests/kill_torchrun.py`: one process is killed, then torchrun, which leaves orphans."
    from kill_torchrun import trial
    told = trial(tmp_path, 2, seed=3, kinds=("second", "torchrun"), epochs=6)
    assert {kind for kind, _ in told} == {"second", "torchrun"}


if __name__ == "__main__": program(Path(sys.argv[1]))
