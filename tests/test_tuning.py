"The search as a user starts it, by papermill on the notebook: continued after a kill; and a mistake."
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from diffhpe.config import Experiment
from diffhpe.tuning import random_trials, run_trial, trial_file

ROOT = Path(__file__).parents[1]
SMOKE = dict(preset="smoke", occ="random", model="diffhpe-2d", device="cpu", dataset="mine")

# The second trial in a process of its own, for a kill to fall into
PROGRAM = """
from diffhpe.config import Experiment
from diffhpe.tuning import random_trials, run_trial
run_trial(random_trials(Experiment(**{given}), 2)[1])
"""


def start(*command):
    return subprocess.Popen([sys.executable, *map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    "A folder with a small motion set."
    from diffhpe.motion_files import write_motion
    from diffhpe.synthetic import synthetic_motion
    folder = tmp_path_factory.mktemp("motion")
    write_motion(folder/"data_3d_mine.npz", synthetic_motion(frames=60, repetitions=1, subjects=("S1", "S5", "S9")))
    return str(folder)


@pytest.fixture(scope="module")
def search(motion, tmp_path_factory):
    "The first of two trials is done, the second is killed in its training; then the notebook goes on."
    folder = tmp_path_factory.mktemp("search")
    given = SMOKE | dict(results_dir=str(folder/"results"), data_dir=motion)
    trials = random_trials(Experiment(**given), 2)
    run_trial(trials[0], threads=1)
    before = trial_file(trials[0]).stat().st_mtime_ns
    process, end = start("-c", PROGRAM.format(given=given)), time.time() + 240
    while len(list((folder/"results").glob("trainings/*"))) < 2:
        assert process.poll() is None and time.time() < end, process.stderr.read()[-2000:]
        time.sleep(.01)
    process.kill(); process.wait()
    assert not trial_file(trials[1]).exists()
    options = [a for name, value in (given | dict(trials=2)).items() for a in ("-p", name, value)]
    run = start("-m", "papermill", "--no-progress-bar", ROOT/"nbs/tune.ipynb", folder/"tune.ipynb", *options)
    _, err = run.communicate(timeout=240)
    assert run.returncode == 0, err[-2000:]
    return folder, trials, before


def test_what_is_left_behind(search):
    root, *_ = search
    [path] = (root/"results/tuning").glob("*/trials.csv")
    rows, folder = list(csv.DictReader(path.open())), path.parent
    assert [(r["trial"], r["state"]) for r in rows] == [("0", "finished"), ("1", "finished")]
    assert all(1e-5 <= float(r["learning_rate"]) <= 1e-2 and 0 <= float(r["dropout"]) <= .5 for r in rows)
    assert len({r["learning_rate"] for r in rows}) == 2
    assert {f.name for f in (root/"results/trainings").iterdir()} == {r["training"] for r in rows}
    best = json.loads((folder/"best.json").read_text())
    first = min(rows, key=lambda r: float(r["mpjpe"]))
    assert best["mpjpe"] == float(first["mpjpe"])
    assert best["values"] == {k: float(first[k]) for k in ("learning_rate", "dropout")}
    assert (best["seed"], best["preset"], best["trials"]["finished"]) == (0, "smoke", 2)
    assert best["environment"]["device"] and len(best["data"]["checksum"]) == 64
    assert (folder/"trials.png").stat().st_size > 1000 and best["command"] in (root/"tune.ipynb").read_text()
    assert f"learning_rate diffhpe-2d={first['learning_rate']} " in best["command"]


def test_a_kill_loses_nothing(search, tmp_path):
    "What was finished stays as it is, and the killed trial ends as it would have without the kill."
    _, trials, before = search
    assert trial_file(trials[0]).stat().st_mtime_ns == before
    alone = replace(trials[1], results_dir=str(tmp_path))
    run_trial(alone, threads=1)
    killed, whole = (json.loads(trial_file(t).read_text()) for t in (trials[1], alone))
    assert all(killed[k] == whole[k] for k in ("mpjpe", "epochs", "training", "data"))


def test_a_mistake_stops_the_search_early(tmp_path):
    "The notebook's cells, in this process, with the parameters as papermill sets them."
    given = SMOKE | dict(results_dir=str(tmp_path/"results"), learning_rates="1e-2, 1e-4")
    notebook, names = parameterize_notebook(load_notebook_node(str(ROOT/"nbs/tune.ipynb")), given), {}
    message = "range of learning_rate='1e-2, 1e-4' is not allowed; two numbers from 1e-09 to 1, the lower first, are"
    with pytest.raises(ValueError, match=message):
        for cell in notebook.cells:
            if cell.cell_type == "code": exec(cell.source, names)
    assert "data" not in names and not (tmp_path/"results").exists()
