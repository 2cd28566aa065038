"""A real training process is killed with SIGKILL, at random steps and while it writes its state; what it ends with is
what an undisturbed one ends with."""
import json
import os
import random
import signal
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file

# A small training that writes its state after every step. With KILL_WRITE=n, the n-th state is written only half when a
# signal file appears.
PROGRAM = '''
import os, sys, time
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
import diffhpe.training as training
from diffhpe.camera import h36m_cameras
from diffhpe.clips import WindowSet
from diffhpe.recipes import FitConfig
from diffhpe.models import DiffHPE
from diffhpe.virtual import virtual_clips

folder, half_write = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
motion = {"S1": {f"Walking {i}": np.array([0, 0, 1.]) + rng.normal(0, .3, (1, 17, 3))
                 + rng.normal(0, .01, (60, 17, 3)).cumsum(0) for i in range(4)}}
clips = virtual_clips(motion, h36m_cameras("S9")[:2])
torch.manual_seed(0)
model = DiffHPE("2d", n_frames=9, channels=8, n_blocks=1, dropout=.2)

step, writes, save = training.train_step, 0, training.save_tensors
def slow_step(*args, **kw):
    time.sleep(.02)                                    # so that a kill falls inside an epoch
    return step(*args, **kw)
def half_save(tensors, path, metadata=None):
    global writes
    writes += 1
    save(tensors, path, metadata)
    if writes == half_write:
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[:len(whole)//2])
        (folder/"writing").touch()
        time.sleep(60)                                 # killed here
training.train_step, training.save_tensors = slow_step, half_save
config = FitConfig(1e-2, 8, 3, .2, validate_every=1, mpjpe_every=3)
training.fit(model, WindowSet(clips[:6], 9, "random"), WindowSet(clips[6:], 9, "random"), config, folder, seed=4,
             checkpoint_seconds=0, progress_bar=False)
(folder/"done").touch()
'''


def start(folder, half_write=0):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(half_write)], stdin=subprocess.DEVNULL,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for(condition, process):
    "Poll until it holds; a process that ends first is an error."
    end = time.time() + 120
    while not condition():
        assert process.poll() is None and time.time() < end, "the training ended, or hung, before it could be killed"
        time.sleep(.002)


def steps_done(folder):
    path = folder/"training.safetensors"
    if not path.exists(): return 0
    data = path.read_bytes()  # in one piece: the file may be replaced at any moment
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["progress"])["step"]


def kill(process):
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_training_ends_as_if_it_never_was(tmp_path):
    undisturbed, killed = tmp_path/"undisturbed", tmp_path/"killed"
    assert start(undisturbed).wait() == 0
    total = steps_done(undisturbed)

    # inside an epoch
    stops = sorted(random.Random(int(time.time())).sample([s for s in range(1, total - 1) if s % (total//3)], 3))
    print("killed after the steps", stops, "of", total)
    for stop in stops:
        process = start(killed)
        wait_for(lambda: steps_done(killed) >= stop, process)
        kill(process)
        assert steps_done(killed) >= stop and not (killed/"done").exists()

    before = (killed/"training.safetensors").read_bytes()
    process = start(killed, half_write=1)                                   # and once while the state is being written
    wait_for((killed/"writing").exists, process)
    kill(process)
    assert (killed/"training.safetensors").read_bytes() == before           # the half-written one has replaced nothing
    assert list(killed.glob(".training.safetensors.*"))
    for name in (".tmpAbC123", "best_loss/.config.json.x_1"): (killed/name).touch()  # other kills leave these

    assert start(killed).wait() == 0
    assert not list(killed.rglob(".*"))                                     # what the kills left behind is gone
    a, b = (load_file(f/"training.safetensors") for f in (undisturbed, killed))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for best in ("best_loss", "best_mpjpe"):
        a, b = (load_file(f/best/"model.safetensors") for f in (undisturbed, killed))
        assert all(torch.equal(a[k], b[k]) for k in a)


# What another machine does: its name is another, and its lock is touched every .2 s.
ELSEWHERE = """
import platform, sys
platform.node = lambda: "vanished"
import diffhpe.parallel as parallel, diffhpe.training as training
from diffhpe.config import Experiment
from diffhpe.slices import run_slice
parallel.BEAT, step = .2, training.train_step
def slow_step(*args, **kw):
    import time; time.sleep(.3)
    return step(*args, **kw)
training.train_step = slow_step
e = Experiment(preset="smoke", model="diffhpe-2d", occ="random", epochs=4, sampler="ddim", n_steps=5, device="cpu",
               results_dir=sys.argv[1])
print(run_slice(e, 10)["finished"])
"""


def test_a_run_whose_machine_vanished_is_taken_over(tmp_path, monkeypatch):
    "A process that calls itself another machine is stopped in its training; later it comes back, and harms nothing."
    import diffhpe.parallel as parallel
    from diffhpe.config import Experiment
    from diffhpe.slices import run_slice
    e = Experiment(preset="smoke", model="diffhpe-2d", occ="random", epochs=4, sampler="ddim", n_steps=5, device="cpu",
                   results_dir=str(tmp_path/"undisturbed"))
    undisturbed, shared = run_slice(e, 10), tmp_path/"shared"
    other = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(shared)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for(lambda: list(shared.glob("trainings/*/training.safetensors")), other)
        other.send_signal(signal.SIGSTOP)
        assert [p.read_text().split()[0] for p in shared.glob("trainings/*/.lock.holder")] == ["vanished"]
        monkeypatch.setattr(parallel, "STALE", 2.)
        began = time.time()
        taken = run_slice(Experiment(**{**vars(e), "results_dir": str(shared)}), 10)
        assert time.time() - began > 2 and taken["metrics"] == undisturbed["metrics"]
        other.send_signal(signal.SIGCONT)
        assert "True" in other.communicate(timeout=120)[0]
    finally: other.kill()
    a, b = (load_file(next(f.glob("trainings/*/training.safetensors"))) for f in (tmp_path/"undisturbed", shared))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    [path] = shared.glob("*/metrics.json")
    assert json.loads(path.read_text())["metrics"] == json.loads(json.dumps(undisturbed["metrics"]))
    assert not list(shared.glob("trainings/*/.lock.holder"))
