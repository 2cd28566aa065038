"The search as a user starts it: killed, and continued by papermill on the notebook; and a mistake."
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
SMOKE = dict(preset="smoke", occ="random", model="diffhpe-2d", device="cpu", dataset="mine")

# A search from a program, which a kill ends in the middle
PROGRAM = """
import sys
from diffhpe.config import Experiment
from diffhpe.datasets import load_dataset
from diffhpe.tuning import search
experiment = Experiment(**{given})
search(experiment, 2, load_dataset("mine", experiment.data_dir, max_clips=4))
"""


def start(*command):
    return subprocess.Popen([sys.executable, *map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def papermill(folder, **parameters):
    given = SMOKE | dict(results_dir=folder/"results") | parameters
    options = [a for name, value in given.items() for a in ("-p", name, value)]
    return start("-m", "papermill", "--no-progress-bar", ROOT/"nbs/tune.ipynb", folder/"tune.ipynb", *options)


def files_of(folder):
    return list((folder/"results/tuning/trials").glob("*.json"))


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    "A folder with a small motion set."
    from diffhpe.h36m import write_motion
    from diffhpe.synthetic import synthetic_motion
    folder = tmp_path_factory.mktemp("motion")
    write_motion(folder/"data_3d_mine.npz", synthetic_motion(frames=60, repetitions=1, subjects=("S1", "S5", "S9")))
    return str(folder)


@pytest.fixture(scope="module")
def search(motion, tmp_path_factory):
    "Killed, with all its processes, once the first of two trials is done; then continued by the notebook."
    folder = tmp_path_factory.mktemp("search")
    given = SMOKE | dict(results_dir=str(folder/"results"), data_dir=motion)
    first, end = start("-c", PROGRAM.format(given=given)), time.time() + 240
    while not files_of(folder):
        assert first.poll() is None and time.time() < end, first.stderr.read()[-2000:]
        time.sleep(.05)
    before = {f: f.stat().st_mtime_ns for f in files_of(folder)}
    processes = [*psutil.Process(first.pid).children(recursive=True), first]
    for p in processes: p.kill()
    for p in processes: p.wait()
    again = papermill(folder, data_dir=motion, trials=2)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err[-2000:]
    return folder, before


def trials(folder):
    "What the search has found, and its folder."
    [path] = (folder/"results/tuning").glob("*/trials.csv")
    return list(csv.DictReader(path.open())), path.parent


def test_what_is_left_behind(search):
    rows, folder = trials(search[0])
    assert [(r["trial"], r["state"]) for r in rows] == [("0", "finished"), ("1", "finished")]
    assert all(1e-5 <= float(r["learning_rate"]) <= 1e-2 and 0 <= float(r["dropout"]) <= .5 for r in rows)
    assert len({r["learning_rate"] for r in rows}) == 2
    assert {f.name for f in (search[0]/"results/trainings").iterdir()} == {r["training"] for r in rows}
    best = json.loads((folder/"best.json").read_text())
    first = min(rows, key=lambda r: float(r["mpjpe"]))
    assert best["mpjpe"] == float(first["mpjpe"])
    assert best["values"] == {k: float(first[k]) for k in ("learning_rate", "dropout")}
    assert (best["seed"], best["preset"], best["trials"]["finished"]) == (0, "smoke", 2)
    assert best["environment"]["device"] and len(best["data"]["checksum"]) == 64
    assert (folder/"trials.png").stat().st_size > 1000 and best["command"] in (search[0]/"tune.ipynb").read_text()
    assert f"learning_rate diffhpe-2d={first['learning_rate']} " in best["command"]


def test_a_kill_loses_nothing(search, motion, tmp_path):
    "What was finished stays as it is, and the trials are those of a search in one go."
    from diffhpe.config import Experiment
    from diffhpe.tuning import random_trials, run_trial, trial_file
    folder, before = search
    assert before and all(f.stat().st_mtime_ns == written for f, written in before.items())
    for trial in random_trials(Experiment(**SMOKE, data_dir=motion, results_dir=str(tmp_path)), 2):
        run_trial(trial, threads=1)
        alone, there = (json.loads(trial_file(t).read_text()) for t in (trial, replace(trial, results_dir=str(folder/"results"))))
        assert all(alone[k] == there[k] for k in ("mpjpe", "epochs", "training", "data"))


def test_a_mistake_stops_the_search_early(tmp_path):
    run = papermill(tmp_path, learning_rates="1e-2, 1e-4")
    message = run.communicate(timeout=240)[1].strip().splitlines()[-1]
    assert run.returncode and "range of learning_rate='1e-2, 1e-4' is not allowed; two numbers from 1e-09 to 1, the lower first, are" in message, message
    assert not (tmp_path/"results").exists()
