"""Two processes under torchrun train together and are killed at random moments; what they end with is what an
undisturbed training ends with, bit for bit. By hand:

    python tests/kill_torchrun.py --kills 20 [--seed 0]

A kill meets all processes, one of the two, or torchrun alone: then the two that train are orphans, which hold the lock
when the next ones start, and are killed with those. tests/test_parallel.py kills twice."""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path

import psutil
from test_resume import steps_done

ROOT = Path(__file__).parents[1]
KINDS = ("all", "first", "second", "torchrun")
BATCHES = 6


def program(folder, epochs):
    "What each process does: it trains as `run_training` does, and writes its state after every step."
    import numpy as np
    import torch

    import diffhpe.training as training
    from diffhpe.camera import h36m_cameras
    from diffhpe.clips import WindowSet
    from diffhpe.recipes import FitConfig
    from diffhpe.models import DiffHPE
    from diffhpe.parallel import held, start_processes, wait_for_all, world
    from diffhpe.virtual import virtual_clips
    start_processes("cpu")
    torch.set_num_threads(1)
    rng, step = np.random.default_rng(0), training.train_step
    motion = {"S1": {f"Walking {i}": np.array([0, 0, 1.]) + rng.normal(0, .3, (1, 17, 3))
                     + rng.normal(0, .01, (60, 17, 3)).cumsum(0) for i in range(4)}}
    clips = virtual_clips(motion, h36m_cameras("S9")[:2])
    torch.manual_seed(0)
    model, train = DiffHPE("2d", n_frames=9, channels=8, n_blocks=1, dropout=.2), WindowSet(clips[:6], 9, "random")
    size = next(s for s in range(1, 1000) if train.n_batches(s) <= BATCHES)
    config = FitConfig(1e-2, size, epochs, .2, validate_every=1, mpjpe_every=2, ema=.9)

    def slow_step(*args, **kw):
        time.sleep(.03)                                    # so that a kill falls inside an epoch
        return step(*args, **kw)
    training.train_step = slow_step
    with held(folder/".lock") if world()[0] == 0 else nullcontext():
        wait_for_all()
        training.fit(model, train, WindowSet(clips[6:], 9, "random"), config, folder, seed=4, checkpoint_seconds=0,
                     progress_bar=False)
        wait_for_all()
    if world()[0] == 0: (folder/"done").touch()


def start(folder, epochs):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__,
               "--folder", str(folder), "--epochs", str(epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder/"errors", "ab") as errors:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment)


def workers_of(torchrun):
    try: return [p for p in psutil.Process(torchrun.pid).children(recursive=True) if "--folder" in p.cmdline()]
    except psutil.Error: return []


def kill(torchrun, kind, orphans):
    "SIGKILL some of the processes, wait until torchrun has ended; → those that it leaves alone."
    workers = workers_of(torchrun)
    chosen = dict(all=[torchrun, *workers], first=workers[:1], second=workers[1:], torchrun=[torchrun])[kind]
    for p in [*orphans, *(chosen or [torchrun])]:
        try: p.kill()
        except psutil.Error: pass
    torchrun.wait(timeout=120)
    return workers if kind == "torchrun" else []


def finish(folder, epochs):
    assert start(folder, epochs).wait(timeout=300) == 0 and (folder/"done").exists(), (folder/"errors").read_text()[-3000:]


def same(a, b):
    "Weights, moments, averages and progress of two trainings, to the last bit; the time they took may differ."
    import torch
    from safetensors.torch import load_file

    from diffhpe.training import read_state
    (first, _, tensors), (second, _, others) = (read_state(f/"training.safetensors") for f in (a, b))
    for p in (first, second): p.seconds = 0; [row.pop("seconds") for row in p.history]
    assert vars(first) == vars(second), (first, second)
    pairs = [(tensors, others)] + [tuple(load_file(f/best/"model.safetensors") for f in (a, b))
                                   for best in ("best_loss", "best_mpjpe")]
    for x, y in pairs: assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    return sum(len(x) for x, _ in pairs)


def trial(folder, kills, seed=0, kinds=KINDS, epochs=20):
    "Kill a training so often, let it end, compare it with an undisturbed one; → what was killed, and where."
    chance, undisturbed, killed, told = random.Random(seed), folder/"undisturbed", folder/"killed", []
    finish(undisturbed, epochs)
    total, orphans = steps_done(undisturbed), []
    for stop in sorted(chance.choices(range(total - 5), k=kills)):
        torchrun, kind = start(killed, epochs), kinds[len(told) % len(kinds)]
        end, before = time.time() + 180, steps_done(killed)
        while steps_done(killed) < max(stop, before + 1):
            assert torchrun.poll() is None and time.time() < end, (killed/"errors").read_text()[-3000:]
            time.sleep(.005)
        time.sleep(chance.random()*.1)
        orphans = kill(torchrun, kind, orphans)
        told.append((kind, steps_done(killed)))
        print(f"killed {kind} after step {steps_done(killed)} of {total}", flush=True)
        if (killed/"done").exists(): break
    for p in orphans:
        try: p.kill()
        except psutil.Error: pass
    finish(killed, epochs)
    print(f"{len(told)} kills; {same(undisturbed, killed)} tensors and the progress are equal to the last bit")
    return told


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="of a training: what torchrun starts, not for you")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    if given.folder: program(Path(given.folder), given.epochs)
    else:
        here = Path(tempfile.mkdtemp())
        try: trial(here, given.kills, given.seed, epochs=given.epochs)
        finally: shutil.rmtree(here, ignore_errors=True)
