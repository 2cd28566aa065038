"A grid as a user starts it: real runs in real processes, one of which fails; killed, and started again."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GRID = """
sections:
  good:
    - {model: diffhpe-wrapper, occ: random, test_occ: [none, random]}
    - {model: mixste, occ: random}
  bad:
    - {model: mixste, occ: none, dataset: nosuch, data_dir: nowhere}
"""
ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def start(folder, *options):
    (folder/"grid.yaml").write_text(GRID)
    return subprocess.Popen([str(Path(sys.executable).with_name("diffhpe_grid")), str(folder/"grid.yaml"), "-p", "preset", "smoke", "-p", "results_dir", str(folder/"results"), *options],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True)


def summaries(folder):
    return {p.parent.name: json.loads(p.read_text()) for p in (folder/"results").glob("*/metrics.json")}


def jobs_of(folder):
    "Processes that work below this folder."
    found = []
    for p in Path("/proc").glob("[0-9]*"):
        try: words = (p/"cmdline").read_bytes().decode(errors="replace")
        except OSError: continue
        if str(folder) in words: found.append(int(p.name))
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    "All three runs: the driver and its jobs are killed once the first summary is there, and the grid is started again."
    folder = tmp_path_factory.mktemp("grid")
    driver, end = start(folder), time.time() + 240
    while not summaries(folder):
        assert driver.poll() is None and time.time() < end, driver.stderr.read()[-2000:]
        time.sleep(.1)
    before = {name: (folder/"results"/name/"metrics.json").stat().st_mtime_ns for name, s in summaries(folder).items() if s["finished"]}
    driver.kill(); driver.wait()
    for pid in jobs_of(folder):
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
    again = start(folder)
    out, err = again.communicate(timeout=240)
    return folder, before, again.returncode, out, err


def test_a_failure_is_reported_and_stops_nothing(grid):
    folder, _, code, out, err = grid
    assert code == 1 and "1 failed" in out, out + err[-2000:]
    [line] = [l for l in out.splitlines() if l.startswith("failed: ")]
    assert "nosuch" in line and "data_3d_nosuch" in line
    notebook = Path(line.rsplit("notebook ", 1)[1])
    assert notebook.is_file() and "data_3d_nosuch" in notebook.read_text()
    assert len(summaries(folder)) == 2 and all(s["finished"] for s in summaries(folder).values())


def test_what_was_finished_is_not_run_again(grid):
    folder, before, *_ = grid
    for name, written in before.items(): assert (folder/"results"/name/"metrics.json").stat().st_mtime_ns == written
    third = start(folder, "--sections", "good")
    out, err = third.communicate(timeout=60)
    assert third.returncode == 0 and "2 runs: 0 finished now, 2 before, 0 failed" in out, out + err


def test_trainings_are_shared(grid):
    folder, *_ = grid
    names = sorted(p.name.rsplit("-", 1)[0] for p in (folder/"results/trainings").iterdir())
    assert names == ["synthetic-smoke-diffhpe-wrapper-random-s0", "synthetic-smoke-mixste-random-s0"]
    one, two = ({k: s["training"]["mixste"]["name"] for k, s in summaries(folder).items()}.values())
    assert one == two
    values = [s["metrics"]["random"]["mixste"] for s in summaries(folder).values()]
    assert values[0] == values[1]                                     # measured twice, from the same weights


def test_a_wrong_grid_says_so_before_anything_runs(tmp_path):
    wrong = start(tmp_path, "--sections", "ugly")
    out, err = wrong.communicate(timeout=60)
    assert wrong.returncode == 2 and "there is no section 'ugly'" in err and not (tmp_path/"results").exists()
