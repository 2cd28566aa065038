"""The paper's other systems against numbers of their releases: the part in tests/data/peers always, all of them where ../shared holds them.

Both are arrays by name (weights under the releases' own names); a test compares whatever its file holds."""
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
PLACES = {"part": ROOT/"tests/data/peers/{}.npz", "whole": ROOT.parent/"shared/reference/{}_tiny.npz"}


class Numbers(dict):
    "Tensors by name."
    def under(self, prefix): return Numbers({k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)})


def numbers(name, place):
    "What a file holds; the test is skipped where it isn't there."
    path = Path(str(PLACES[place]).format(name))
    if not path.exists(): pytest.skip(f"the whole comparison needs {path.name} in ../shared/reference, which is not there")
    with np.load(path) as z: return Numbers({k: torch.from_numpy(z[k]) for k in z if z[k].dtype.kind != "U"})


def near(got, wanted, tolerance=1e-4):
    got, wanted = (torch.as_tensor(v).detach().double() for v in (got, wanted))
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= tolerance*max(1., wanted.abs().max().item())


@pytest.fixture(params=PLACES)
def place(request): return request.param


# --- CSDI, TCD

def clips(x): return x.movedim(1, -1).transpose(1, 2)                      # (B, C, N, L) as released → (B, L, N, C)

@pytest.mark.parametrize("form", ["tcd", "lift"])
@torch.no_grad()
def test_csdi_as_imputation(place, form):
    from diffhpe.csdi import LiftingImputer, imputation_loss, released_csdi
    from diffhpe.diffusion import q_sample
    from diffhpe.samplers import sample_ddpm
    from diffhpe.schedule import noise_schedule
    z = numbers("csdi", place).under(f"{form}/")
    if not z: pytest.skip(f"the part in tests/data has no numbers of the form {form}")
    net, schedule, t = released_csdi(z.under("model/"), n_steps=10), noise_schedule("cosine", 10), z["t"]
    values, eps = z["observed"].mT, z["noise"].mT                           # (B, L, K)
    mask = z["cond_mask"].mT if "cond_mask" in z else torch.tensor([1., 1, 0, 0, 0]).repeat(17).expand_as(values)
    near(net(values, q_sample(values, t, schedule.alpha_bar, eps), mask, t)*(1 - mask), z["predicted_noise"].mT*(1 - mask))
    near(imputation_loss(net, values, mask, schedule.alpha_bar, t, eps), z["loss"])
    if "side_info" not in z: return
    near(net.side(mask), clips(z["side_info"]))
    near(net.network.embedding(t), z["diffusion_embedding"])
    x = clips(z["block0/input"])
    out = net.network.blocks[0](x, net.network.embedding(t), net.side(mask))
    for got, name in zip(out, ("residual_out", "skip")): near(got, clips(z[f"block0/{name}"]))
    x_T, steps = z["initial_noise"].mT, z["step_noise"].mT
    x0 = sample_ddpm(lambda x_t, t: net(values, x_t, mask, torch.tensor([t])), x_T, schedule, step_noise=steps)
    near(mask*values + (1 - mask)*x0, z["sample"].mT)
    if form == "lift":
        pose = lambda v: v.unflatten(-1, (17, 5))[..., 2:]
        denoise, k = LiftingImputer(net), values.unflatten(-1, (17, 5))[..., :2]
        near(sample_ddpm(lambda x_t, t: denoise(x_t, k, torch.tensor([t])), pose(x_T), schedule, step_noise=pose(steps)), pose(z["sample"].mT))

@torch.no_grad()
def test_csdi_joint_by_joint(place):
    from diffhpe.csdi import JointDenoiser, released_csdi
    z = numbers("csdi", place).under("jointwise/")
    net, x, t = released_csdi(z.under("model/"), n_steps=10), clips(z["input"]), z["t"]
    assert isinstance(net, JointDenoiser)
    near(net(x[..., :3], x[..., 3:], t), clips(z["output"]))
    if "skips" not in z: return
    x = torch.relu(net.input(x))
    near(x, clips(z["after_input_projection"]))
    for block, wanted in zip(net.blocks, z["skips"], strict=True):
        x, skip = block(x, net.embedding(t))
        near(skip, clips(wanted))

def test_csdi_loads_from_every_wrapping():
    from diffhpe.csdi import released_csdi
    w = numbers("csdi", "part").under("lift/model/")
    plain = released_csdi(w, 10).state_dict()
    for contents in ({f"module.{k}": v for k, v in w.items()}, {"model_pos": w, "epoch": 3}, [w, {}]):
        again = released_csdi(contents, 10).state_dict()
        assert all(torch.equal(v, again[k]) for k, v in plain.items())
    trained = released_csdi(w, 10).train()
    before = trained(*torch.randn(3, 1, 9, 85).unbind(), torch.tensor([3])).mean()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())

# --- GraFormer

@torch.no_grad()
def test_graformer(place):
    from diffhpe.graformer import GCNdiff, GCNpose, released_graformer, step_sinusoid
    z = numbers("diffpose", place)
    net = released_graformer(z.under("diff/"))
    assert isinstance(net, GCNdiff)
    table = step_sinusoid(z["t"], 16)
    stages = dict(gconv_input=net.input(z["x_t"]), t_embedding=net.embedding(table))
    stages["after_attention_0"] = net.attentions[0](stages["gconv_input"])
    stages["after_gconv_0"] = net.blocks[0](stages["after_attention_0"], stages["t_embedding"])
    for name, wanted in z.under("stage/").items(): near(stages[name], wanted)
    near(net(z["x_t"], z["t"]), z["predicted_noise"])
    if "t_embedding_sinusoid" in z: near(table, z["t_embedding_sinusoid"])
    if not z.under("pose/"): return
    net = released_graformer(z.under("pose/"))
    assert isinstance(net, GCNpose)
    near(net(z["uv"]), z["pose_xyz_raw"])

def test_graformer_learns_everywhere():
    from diffhpe.graformer import released_graformer
    z = numbers("diffpose", "part")
    w = z.under("diff/")
    net = released_graformer([{f"module.{k}": v for k, v in w.items()}, {"lr": 1e-3}, 1, 2, w]).train()
    net(z["x_t"], z["t"]).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
