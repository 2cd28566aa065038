"The transfer experiment as a user starts it, in seconds and on the embedded set alone."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

ROOT = Path(__file__).parents[1]


def papermill(folder, **parameters):
    options = [a for name, value in (dict(steps=1, max_windows=4, results_dir=folder/"results") | parameters).items() for a in ("-p", name, str(value))]
    return subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT/"nbs/transfer.ipynb"), str(folder/"run.ipynb"), *options],
                          cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_every_lifter_is_tested_on_every_set(tmp_path):
    from diffhpe.synthetic import synthetic_motion
    from diffhpe.motion_files import write_motion
    motion = synthetic_motion(frames=60, repetitions=1, subjects=("S1", "S5", "S9"))
    write_motion(tmp_path/"data_3d_mine.npz", motion)
    run = papermill(tmp_path, sets="mine,absent", data_dir=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((tmp_path/"results/transfer-none-s0/transfer.json").read_text())
    assert {(r["trained"], r["tested"], r["model"]) for r in found["rows"]} == {("mine", "mine", m) for m in ("mean pose", "ridge regression", "MixSTE")}
    assert all(r["windows"] == 4 and 0 < r["mpjpe"] < 1000 for r in found["rows"]) and np.isfinite(found["steps"])
    assert found["data"]["mine"]["description"].startswith("real motion, simulated 2D")


def test_a_folder_that_is_not_there(tmp_path):
    "The notebook's cells, in this process, with the parameters as papermill sets them."
    given = dict(data_dir=str(tmp_path/"nowhere"), results_dir=str(tmp_path/"results"))
    notebook, names = parameterize_notebook(load_notebook_node(str(ROOT/"nbs/transfer.ipynb")), given), {}
    with pytest.raises(ValueError, match="is no folder; that of the files data_3d_<name>.npz is allowed"):
        for cell in notebook.cells:
            if cell.cell_type == "code": exec(cell.source, names)
    assert not (tmp_path/"results").exists()
