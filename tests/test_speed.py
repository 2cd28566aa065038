"The fast way gives what the plain way gives, at the paper's size and on trained models; and the benchmark runs."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffhpe.checkpoints import load_checkpoint
from diffhpe.clips import WindowSet
from diffhpe.datasets import load_dataset
from diffhpe.experiments import shipped_weights
from diffhpe.mixste import MixSTE
from diffhpe.models import DiffHPE
from diffhpe.reference import reference_denoiser, reference_loss, reference_sample

ROOT = Path(__file__).parents[1]


def noise(clips, hypotheses, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(clips, hypotheses, 27, 17, 3, generator=g), torch.randn(50, clips, hypotheses, 27, 17, 3, generator=g)


def lively(model):
    "No weight, scale or running statistic at its start, where it would be of no influence."
    torch.manual_seed(0)
    for m in model.denoiser.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(0, .1); m.running_var.uniform_(.5, 1.5); torch.nn.init.uniform_(m.weight, .5, 1.5)
    torch.nn.init.normal_(model.denoiser.output2.weight, std=.05)
    return model.eval()


@pytest.mark.parametrize("conditioning", ["2d", "mixste"])
def test_paper_size_random_weights(conditioning):
    torch.manual_seed(1)
    model = lively(DiffHPE(conditioning, MixSTE() if conditioning == "mixste" else None))
    keypoints, (x_T, z) = torch.randn(1, 27, 17, 2), noise(1, 2)
    expected = reference_sample(model, keypoints, x_T, z)
    assert expected.std() > .1
    for chunk in (None, 1): assert (model.sample(keypoints, 2, initial_noise=x_T, step_noise=z, chunk_size=chunk) - expected).abs().max() < 1e-4*expected.abs().max()


@pytest.mark.parametrize("name", ["diffhpe-2d", "diffhpe-wrapper"])
def test_trained_models(name):
    model, windows = load_checkpoint(shipped_weights(name, "demo")), WindowSet(load_dataset("synthetic").test, 27, "consecutive_frames", seed=0)
    keypoints, (x_T, z) = windows.evaluation_batch(np.array([0, 500, 1000]))[0], noise(3, 2)
    expected = reference_sample(model, keypoints, x_T, z)
    assert .1 < expected.std() < 1
    assert (model.sample(keypoints, 2, initial_noise=x_T, step_noise=z) - expected).abs().max() < 1e-4          # metres


def test_paper_size_loss_and_gradients():
    "In double precision; in single precision the reference itself is further than this from the truth."
    torch.manual_seed(2)
    model = lively(DiffHPE("2d", dropout=0.)).double().train()
    keypoints, poses, eps, t = torch.randn(3, 27, 17, 2).double(), torch.randn(3, 27, 17, 3).double(), torch.randn(3, 27, 17, 3).double(), torch.tensor([2, 20, 45])
    noisy = model.alpha_bar[t].sqrt()[:, None, None, None]*poses + (1 - model.alpha_bar[t]).sqrt()[:, None, None, None]*eps
    gradients, losses = [], []
    for loss in ((eps - model.predict_noise(noisy, t, keypoints)).square().mean(), reference_loss(model, reference_denoiser(model.denoiser), keypoints, poses, t, eps)):
        model.zero_grad(); loss.backward()
        losses.append(loss.item()); gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert (gradients[0] - gradients[1]).norm() < 1e-6*gradients[1].norm()


def test_the_benchmark_runs(tmp_path):
    run = subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT/"nbs/benchmarks.ipynb"), str(tmp_path/"run.ipynb"), "-p", "quick", "True", "-p", "machine", "here", "-p", "results_dir", str(tmp_path)],
                         cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((tmp_path/"benchmarks/here.json").read_text())
    assert found["equality"]["random_weights_relative"] < 1e-4 and found["equality"]["trained_metres"] < 1e-4 and found["gradients"]["gradient_float64"] < 1e-4
    assert {"forward", "sampling, H = 5", "stream"} <= {next(iter(row)) for row in found["rows"]} and set(found["mpjpe_by_steps"]["curves"]["dpmpp_2m"]) == {"1", "2", "3", "5", "10", "25", "50"}
