"The recipes for Slurm, as they stand on the pages, with stand-ins for its commands (tests/slurm)."
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
SMALL = "-p preset smoke -p model mixste -p occ random -p device cpu -p dataset synthetic"


@pytest.fixture
def slurm(tmp_path):
    "The environment of a login node, and the folder in which the stand-ins note what they did."
    home = tmp_path/"slurm"
    home.mkdir()
    return home, os.environ | dict(PATH=f"{ROOT}/tests/slurm:{os.environ['PATH']}", STANDIN_SLURM=str(home),
                                   OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))


def blocks(page, word):
    "Fenced blocks of a notebook's text that have a word."
    texts = [c.source for c in nbformat.read(ROOT/"nbs"/page, 4).cells if c.cell_type == "markdown"]
    return [b for t in texts for b in re.findall(r"^```\w*\n(.*?)^```", t, re.M | re.S) if word in b]


def codes(home): return {p.stem: p.read_text().strip() for p in home.glob("*.code")}


def test_a_grid_is_run_by_slurm(tmp_path, slurm):
    "The guide's command, with its settings, for one small run: a job with these settings, a finished run."
    home, environment = slurm
    [block] = [b for b in blocks("guide_run_an_experiment.ipynb", "--cluster slurm")]
    settings = re.findall(r"-s (\w+) (\w+)", block)
    assert settings
    (tmp_path/"grid.yaml").write_text("sections: {one: [{seed: 0}]}")
    command = [str(Path(sys.executable).with_name("diffhpe_grid")), str(tmp_path/"grid.yaml"), *shlex.split(SMALL),
               "-p", "results_dir", str(tmp_path/"results"), "--cluster", "slurm", *[a for s in settings for a in ("-s", *s)]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "1 runs: 1 finished now" in done.stdout, done.stdout + done.stderr[-3000:]
    [path] = (tmp_path/"results").glob("*/metrics.json")
    assert json.loads(path.read_text())["finished"] and codes(home) == {"100": "0"}
    options = dict(line.split("=", 1) for line in (home/"100.options").read_text().splitlines())
    for name, value in settings: assert options[name.removeprefix("slurm_").replace("_", "-")] == value
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert "0 finished now, 1 before" in again.stdout and len(codes(home)) == 1     # nothing is submitted twice


def test_a_grid_says_that_there_is_no_slurm(tmp_path):
    (tmp_path/"grid.yaml").write_text("sections: {one: [{seed: 0}]}")
    from diffhpe.grid import main
    with pytest.MonkeyPatch.context() as m, pytest.raises(SystemExit) as end:
        m.setenv("PATH", str(tmp_path))
        main([str(tmp_path/"grid.yaml"), "--cluster", "slurm", "-p", "results_dir", str(tmp_path/"results")])
    assert end.value.code == 2


def test_slices_submit_themselves_until_they_are_done(tmp_path, slurm):
    "The page's script; the first slice has no time, the second has enough."
    home, environment = slurm
    [script] = blocks("59_slices.ipynb", "#SBATCH")
    assert "--minutes 50" in script and ".venv/bin/python" in script
    (tmp_path/"slices.sh").write_text(script.replace(
        "--minutes 50", "--minutes $(ls slices-*.log | wc -l | awk '{print ($1 > 1)*50}')"))
    (tmp_path/".venv/bin").mkdir(parents=True)
    (tmp_path/".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path/".venv/bin/python").chmod(0o755)
    [line] = blocks("59_slices.ipynb", "sbatch slices.sh -p")
    assert line.startswith("sbatch slices.sh -p")
    first = subprocess.run(["sbatch", "slices.sh", *shlex.split(SMALL), "-p", "results_dir", str(tmp_path/"results")],
                           cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert first.stdout == "Submitted batch job 100\n", first.stderr
    end = time.time() + 500
    while not (found := list((tmp_path/"results").glob("*/metrics.json"))) or len(codes(home)) < len(list(home.glob("*.sh"))):
        assert time.time() < end and not set(codes(home).values()) - {"0"}, [p.read_text() for p in tmp_path.glob("*.log")]
        time.sleep(.5)
    assert json.loads(found[0].read_text())["finished"]
    assert codes(home) == {"100": "0", "101": "0"}
    assert "not finished: call again" in (tmp_path/"slices-100.log").read_text()
