"A grid as a user starts it: real runs in real processes, one of which fails; killed, and started again."
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from diffhpe.config import Experiment
from diffhpe.files import ROOT
from diffhpe.grid import is_finished, main, read_grid, read_pairs, run_grid
from diffhpe.results import run_folder, write_json
from diffhpe.slices import run_slice
from diffhpe.tuning import search

GRID = """
scales:
  tiny: {{preset: smoke, model: mixste, occ: random, dataset: mine, data_dir: {data}, results_dir: {results}}}
sections:
  before: [{{seed: 1}}]
  good: [{{}}]
  bad: [{{dataset: nosuch}}]
"""


def start(*arguments):
    return subprocess.Popen([str(Path(sys.executable).with_name("diffhpe_grid")), *map(str, arguments)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def written(folder):
    "When each summary was written."
    return {p.parent.name: p.stat().st_mtime_ns for p in (folder/"results").glob("*/metrics.json")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "With a small motion set, a grid file, and one of its three runs as if it was finished."
    from diffhpe.motion_files import write_motion
    from diffhpe.synthetic import synthetic_motion
    folder = tmp_path_factory.mktemp("grid")
    write_motion(folder/"data_3d_mine.npz", synthetic_motion(frames=60, repetitions=1, subjects=("S1", "S5", "S9")))
    (folder/"data_3d_nosuch.npz").write_bytes(b"PK, and no archive")                 # what is there is not looked into
    (folder/"grid.yaml").write_text(GRID.format(data=folder, results=folder/"results"))
    [before] = read_grid(folder/"grid.yaml", ["before"])
    write_json(run_folder(before)/"metrics.json", dict(finished=True))
    return folder


@pytest.fixture(scope="module")
def again(folder):
    "The grid and all its processes are killed in the middle of a training; then it is started again."
    before = written(folder)
    driver, end = start(folder/"grid.yaml", "--sections", "before,good"), time.time() + 240
    while not list((folder/"results").glob("trainings/*/*")):
        assert driver.poll() is None and time.time() < end, driver.stderr.read()[-2000:]
        time.sleep(.05)
    processes = [*psutil.Process(driver.pid).children(recursive=True), driver]
    for p in processes: p.kill()
    for p in processes: p.wait()
    second = start(folder/"grid.yaml")
    out, err = second.communicate(timeout=240)
    return before, second.returncode, out, err


def test_a_failure_is_reported_and_stops_nothing(folder, again):
    _, code, out, err = again
    assert code == 1 and "3 runs: 1 finished now, 1 before, 1 failed" in out, out + err[-2000:]
    [line] = [l for l in out.splitlines() if l.startswith("failed: ")]
    assert "nosuch" in line and "data_3d_nosuch" in line
    notebook = Path(line.rsplit("notebook ", 1)[1])
    assert notebook.is_file() and "data_3d_nosuch" in notebook.read_text()
    runs = read_grid(folder/"grid.yaml", ["before", "good"])
    assert all(map(is_finished, runs)) and len(written(folder)) == 2


def test_what_was_finished_is_not_run_again(folder, again, capsys):
    now = written(folder)
    assert len(again[0]) == 1 and again[0].items() <= now.items()
    assert main([str(folder/"grid.yaml"), "--sections", "before,good"]) == 0
    assert "2 runs: 0 finished now, 2 before, 0 failed" in capsys.readouterr().out and written(folder) == now


def test_trainings_are_shared(folder, again):
    "A Wrapper, without papermill: its backbone is the MixSTE of the grid, measured again with the same numbers."
    [run] = read_grid(folder/"grid.yaml", ["good"])
    first = json.loads((run_folder(run)/"metrics.json").read_text())
    there = {p.name for p in (folder/"results/trainings").iterdir()}
    second = run_slice(replace(run, model="diffhpe-wrapper", test_occ=("none", "random")), 10)
    assert there == {first["training"]["mixste"]["name"]} == {second["training"]["mixste"]["name"]}
    names = sorted(p.name.rsplit("-", 1)[0] for p in (folder/"results/trainings").iterdir())
    assert names == ["mine-smoke-diffhpe-wrapper-random-s0", "mine-smoke-mixste-random-s0"]
    assert first["metrics"]["random"]["mixste"] == second["metrics"]["random"]["mixste"]


def test_a_wrong_grid_says_so_before_anything_runs(tmp_path, capsys):
    (tmp_path/"grid.yaml").write_text(GRID.format(data=tmp_path, results=tmp_path/"results"))
    with pytest.raises(SystemExit) as end: main([str(tmp_path/"grid.yaml"), "--sections", "ugly"])
    assert end.value.code == 2 and "there is no section 'ugly'" in capsys.readouterr().err
    assert not (tmp_path/"results").exists()

def without_weights(monkeypatch, folder):
    (folder/"weights").mkdir()
    (folder/"weights/model.safetensors").write_bytes(bytes(9))
    monkeypatch.setattr("diffhpe.results.shipped_weights", lambda *_: folder/"weights")

def without_papermill(monkeypatch, folder):
    found = importlib.util.find_spec
    monkeypatch.setattr("diffhpe.results.find_spec", lambda m: None if m == "papermill" else found(m))
    real = importlib.import_module
    def missing(name):
        if name == "papermill": raise ModuleNotFoundError(name=name)
        return real(name)
    monkeypatch.setattr("diffhpe.files.import_module", missing)

LACKS = {"data": (dict(dataset="nosuch", data_dir="{}"), "{}/data_3d_nosuch.npz"),
         "folder of data": (dict(dataset="nosuch", data_dir="{}/away"), "{}/away"),
         "no folder": (dict(dataset="nosuch"), "data_dir, the folder of that file, is not given"),
         "one of two": (dict(dataset="synthetic+nosuch", data_dir="{}"), "{}/data_3d_nosuch.npz"),
         "detector": (dict(dataset="h36m", data_dir="{}", keypoints="yolo"), "no keypoints of the detector 'yolo'"),
         "device": (dict(device="cuda:7"), "CUDA device"),
         "results": (dict(results_dir="/proc/there"), "/proc"), "link": (dict(results_dir="{}/link"), "{}/link"),
         "weights": (dict(preset="demo"), "config.json is missing"),
         "extra": ({}, "an experiment needs papermill, which is not installed; pip install 'diffhpe[experiments]'")}

@pytest.mark.parametrize("way", ["grid", "slice", "search", "notebook"])
@pytest.mark.parametrize("lack", LACKS)
def test_what_is_lacking_is_said_before_anything_begins(lack, way, tmp_path, monkeypatch):
    "One run of several; `begin` is what each way does first."
    if lack == "extra" and way in ("slice", "notebook"): pytest.skip("it is not run by papermill")
    if lack == "results" and sys.platform != "linux": pytest.skip("there is no /proc")
    given, says = LACKS[lack]
    (tmp_path/"data_3d_h36m.npz").touch(); (tmp_path/"link").symlink_to("nothing")
    given = {k: v.format(tmp_path) for k, v in given.items()}
    if lack == "weights": without_weights(monkeypatch, tmp_path)
    if lack == "extra": without_papermill(monkeypatch, tmp_path)
    before = set(tmp_path.rglob("*"))
    usual = dict(preset="smoke", model="mixste", results_dir=str(tmp_path/"results"), device="cpu")
    begin = lambda *_, **__: pytest.fail("it has begun")
    monkeypatch.setattr("submitit.AutoExecutor", begin)
    for module in ("slices", "tuning"): monkeypatch.setattr(f"diffhpe.{module}.load_dataset", begin)
    with pytest.raises((ValueError, OSError, ImportError)) as e:
        if way == "slice": run_slice(Experiment(**usual | given), 1)
        elif way == "search":
            search(Experiment(**usual | given), 2, SimpleNamespace(checksum="1a2b"))
        elif way == "notebook": exec(first_cells(), {**usual, **given})
        else: run_grid([Experiment(**usual), Experiment(**usual | given | dict(seed=1))])
    text = str(e.value)
    assert says.format(tmp_path) in text and "\n" not in text and len(text) < 1500
    if way == "grid" and lack not in ("extra", "results", "link"): assert "nothing has begun, as the run" in text
    assert set(tmp_path.rglob("*")) == before

def first_cells():
    "What the experiment's notebook does with its parameters before it loads data."
    cells = json.loads((ROOT/"nbs/run_experiment.ipynb").read_text())["cells"]
    [cell] = [s for c in cells if "read_parameters(globals())" in (s := "".join(c["source"]))]
    return f"""
import time
from diffhpe.config import PRESETS, parameter_names, read_parameters as read
from diffhpe.parallel import choose_device, start_processes
from diffhpe.results import check_needs, run_folder
given = dict(occ="consecutive") | {{k: v for k, v in globals().items() if k in parameter_names()}}
read_parameters = lambda _: read(given)
{cell}"""

def test_the_command_says_it_in_one_sentence(tmp_path, capsys):
    (tmp_path/"grid.yaml").write_text(GRID.format(data=tmp_path, results=tmp_path/"results"))
    with pytest.raises(SystemExit) as end: main([str(tmp_path/"grid.yaml")])
    told = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and told.startswith("diffhpe_grid: error: nothing has begun, as the run mine-smoke-")
    assert f"{tmp_path}/data_3d_mine.npz" in told and [p.name for p in tmp_path.iterdir()] == ["grid.yaml"]

@pytest.mark.parametrize("how", ["grid file", "grid -p", "papermill -p", "papermill -y", "papermill -f"])
def test_a_number_is_the_same_however_it_is_given(how, tmp_path):
    "What papermill hands over is looked at in the notebook that it prepares. 010 in its -y and -f it reads itself, as YAML's octal number."
    given = dict(learning_rate="1e-4", epochs="1e3", seed="11" if how[-2:] in ("-y", "-f") else "010", noise="1E+1", batch_size="8")
    block = "".join(f"{name}: {value}\n" for name, value in given.items())
    pairs = [part for pair in given.items() for part in ("-p", *pair)]
    if how.startswith("grid"):
        lines = block if how == "grid file" else "model: all\n"
        (tmp_path/"a.yaml").write_text("sections:\n  a:\n  - " + lines.strip().replace("\n", "\n    "))
        [run] = read_grid(tmp_path/"a.yaml", **read_pairs(list(given.items()) if how == "grid -p" else []))
    else:
        (tmp_path/"p.yaml").write_text(block)
        options = {"-p": pairs, "-y": ["-y", block], "-f": ["-f", str(tmp_path/"p.yaml")]}[how[-2:]]
        subprocess.run([sys.executable, "-m", "papermill", "--prepare-only", str(ROOT/"nbs/run_experiment.ipynb"), str(tmp_path/"out.ipynb"), *options], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        [cell] = [c for c in json.loads((tmp_path/"out.ipynb").read_text())["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
        names = {}; exec("".join(cell["source"]), names)
        run = Experiment(**{name: names[name] for name in given})
    assert (run.learning_rate, run.epochs, run.seed, run.noise, run.batch_size) == (.0001, 1000, int(given["seed"]), 10, 8)
