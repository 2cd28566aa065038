"The search as a user starts it: papermill on the notebook, in one go and killed, right and wrong."
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMOKE = dict(preset="smoke", occ="random", model="diffhpe-2d", device="cpu")

# A search whose trainings take a second a step, for a kill to fall into
PROGRAM = '''
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
import diffhpe.training as training
from diffhpe.config import Experiment
from diffhpe.datasets import load_dataset
from diffhpe.tuning import RANGES, search, tuning_folder

e = Experiment(results_dir=sys.argv[1], preset="smoke", occ="random", model="diffhpe-2d")
step = training.train_step
def slow_step(*args, **kw):
    (Path(sys.argv[1])/"a step").touch()
    time.sleep(1)
    return step(*args, **kw)
training.train_step = slow_step
search(e, e.model, 3, tuning_folder(e, e.model), load_dataset("synthetic", max_clips=4), progress_bar=False)
'''


def papermill(folder, **parameters):
    options = [a for name, value in (SMOKE | dict(results_dir=folder/"results") | parameters).items() for a in ("-p", name, str(value))]
    return subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT/"nbs/tune.ipynb"), str(folder/"tune.ipynb"), *options],
                          cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def trials(folder):
    "What the search has found, but for how long it took; and its folder."
    [path] = (folder/"results/tuning").glob("*/trials.csv")
    return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(path.open())], path.parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "Three trials, left alone."
    folder = tmp_path_factory.mktemp("whole")
    run = papermill(folder, trials=3)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


def test_what_is_left_behind(whole):
    rows, folder = trials(whole)
    assert [(r["trial"], r["state"]) for r in rows] == [(str(i), "finished") for i in range(3)]
    assert all(1e-5 <= float(r["learning_rate"]) <= 1e-2 and 0 <= float(r["dropout"]) <= .5 for r in rows) and len({r["learning_rate"] for r in rows}) == 3
    assert {f.name for f in (whole/"results/trainings").iterdir()} == {r["training"] for r in rows}
    best = json.loads((folder/"best.json").read_text())
    first = min(rows, key=lambda r: float(r["mpjpe"]))
    assert (best["mpjpe"], best["values"]) == (float(first["mpjpe"]), {k: float(first[k]) for k in ("learning_rate", "dropout")})
    assert (best["seed"], best["preset"], best["trials"]["finished"]) == (0, "smoke", 3) and best["environment"]["device"] and len(best["data"]["checksum"]) == 64
    assert (folder/"trials.png").stat().st_size > 1000 and best["command"] in (whole/"tune.ipynb").read_text()
    assert f"learning_rate diffhpe-2d={first['learning_rate']} " in best["command"]


def test_two_processes_that_are_killed_lose_nothing(whole, tmp_path):
    "Both in the middle of a trial; the notebook takes both up, and ends with the trials of a search in one go."
    results = tmp_path/"results"
    results.mkdir()
    processes = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(results)], stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) for _ in range(2)]
    try:
        end = time.time() + 300
        while len(list((results/"tuning").glob("*/.locks/trial-*"))) < 2 or not (results/"a step").exists():
            assert all(p.poll() is None for p in processes) and time.time() < end, "a search ended, or hung, before it could be killed"
            time.sleep(.01)
    finally:
        for p in processes: p.kill()
        for p in processes: p.wait()
    journal = next((results/"tuning").glob("*/study.jsonl"))
    journal.write_bytes(journal.read_bytes() + b'{"op_code":6,"wor')             # and one of them while it was writing
    run = papermill(tmp_path, trials=3)
    assert run.returncode == 0, run.stderr[-2000:]
    assert trials(tmp_path)[0] == trials(whole)[0]


def test_a_mistake_stops_the_search_early(tmp_path):
    run = papermill(tmp_path, learning_rates="1e-2, 1e-4")
    message = run.stderr.strip().splitlines()[-1]
    assert run.returncode and "range of learning_rate='1e-2, 1e-4' is not allowed; two numbers from 1e-09 to 1, the lower first, are" in message, message
    assert not (tmp_path/"results").exists()
