"""The paper's other systems against numbers of their releases: the part in tests/data/peers always, all of them where ../shared holds them.

Both are arrays by name (weights under the releases' own names); a test compares whatever its file holds."""
import json
import subprocess
import sys
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

# --- D3DP

@torch.no_grad()
def test_d3dp_in_training(place):
    from diffhpe.d3dp import released_d3dp
    from diffhpe.diffusion import q_sample
    from diffhpe.graformer import step_sinusoid
    z = numbers("d3dp", place)
    model, t = released_d3dp({f"module.{k}": v for k, v in z.under("model/").items()}), z["t"]
    x_t = q_sample(z["x3d"], t, model.schedule.alpha_bar, z["noise"])
    near(x_t.clamp(-1.1, 1.1), z["x_t_clamped"])
    near(model.raw_pose(x_t, t, z["x2d"]), z["train_pose"])
    near(model.loss(z["x2d"], z["x3d"], t=t, eps=z["noise"]), z["train_loss"])
    near(model.denoiser.step(step_sinusoid(t, 16)), z["t_embedding"])
    if "t_embedding_sinusoid" in z: near(step_sinusoid(t, 16), z["t_embedding_sinusoid"])
    if "schedule/betas" in z:
        near(model.schedule.beta, z["schedule/betas"], 1e-12)
        near(model.schedule.alpha_bar, z["schedule/alphas_cumprod"], 1e-12)

@torch.no_grad()
def test_d3dp_at_test(place):
    from diffhpe.d3dp import released_d3dp
    from diffhpe.respacing import trailing_steps
    from diffhpe.targets import as_noise
    z = numbers("d3dp", place)
    model = released_d3dp(z.under("model/"))
    for K in (1, 3, 4):
        run = z.under(f"ddim{K}/")
        if not run: continue
        times, noise = trailing_steps(K, 1000), run["initial_noise"]
        if "times" in run: assert times + [-1] == run["times"].tolist()
        given = dict(zip(times, run["step_noise"]))
        got = model.sample(z["x2d"][:len(noise)], noise.shape[1], K, initial_noise=noise, step_noise=given)
        near(got, run["x0_each_step"])
    if "test_x_t" not in z: return
    H = z["test_x_t"].shape[1]
    x_t, t, k = z["test_x_t"].flatten(0, 1), z["test_t"], z["x2d"].repeat_interleave(H, 0)
    near(model.raw_pose(x_t, t.repeat_interleave(H), k), z["test_pose_raw"].flatten(0, 1))
    assert len(t.unique()) == 1
    x0 = model.predict_x0(x_t, int(t[0]), k)
    near(x0, z["test_x0_flip_clamped"].flatten(0, 1))
    near(as_noise("x0", x0.double(), x_t.double(), int(t[0]), model.schedule.alpha_bar), z["test_noise_from_x0"].flatten(0, 1))

def test_d3dp_scores(place):
    from diffhpe.camera import project
    from diffhpe.d3dp import d3dp_figures, pick_joints, reprojection_cost
    from diffhpe.metrics import joint_errors, procrustes_align
    z = numbers("d3dp", place)
    c, target = z["camera"].double().numpy(), z["agg/target"]
    for i in range(z["agg/reprojection"].shape[1]):
        h, seen, k = z["agg/poses_before_root_zeroing"][:, i].clone(), z["agg/reprojection"][:, i], z["x2d"]
        at_root = h.clone(); at_root[..., 0, :] = 0
        near(torch.from_numpy(project((at_root + z["root"][:, None]).double().numpy(), c[:2], c[2:4], c[4:7], c[7:])), seen)
        cost = reprojection_cost(seen, k)
        assert torch.equal(cost.argmin(1), z["agg/jagg_index"][:, i].long())
        near(pick_joints(at_root, cost), z["agg/jagg_pose"][:, i])
        if "agg/pagg_pose" in z: near(at_root.mean(1), z["agg/pagg_pose"][:, i])
        found = d3dp_figures(h, target, k, projected_true=seen)
        flat = {"P_Agg": found["deployable"]["P-Agg"], "J_Agg": found["needs the true root"]["J-Agg"], "J_Best": found["oracle"]["J-Best"],
                "P_Best": found["oracle"]["P-Best"], "P_Best_clip_by_clip": found["oracle"]["P-Best, clip by clip"]}
        for name, v in flat.items(): near(v/1000, z[f"metric/{name}"][i])
        if "metric/p2_P_Agg" not in z: continue
        p2 = lambda pose: joint_errors(procrustes_align(pose, target), target).mean()
        each = joint_errors(procrustes_align(at_root, target[:, None].expand_as(at_root)), target[:, None].expand_as(at_root))
        near(p2(at_root.mean(1)), z["metric/p2_P_Agg"][i])
        near(each.take_along_dim(cost.argmin(1, keepdim=True), 1).mean(), z["metric/p2_J_Agg"][i])   # aligned, then picked
        near(each.mean((0, 2, 3)).min(), z["metric/p2_P_Best"][i])
        near(each.amin(1).mean(), z["metric/p2_J_Best"][i])

def test_d3dp_learns():
    "A few steps of its own loss bring it from the mean pose to less, and the mirror and the clamp are in the way of no gradient."
    from diffhpe.d3dp import D3DP, half_square
    torch.manual_seed(0)
    model, g = D3DP(n_frames=5, channels=16, depth=1, drop_path=0.), torch.Generator().manual_seed(0)
    k = torch.randn(32, 5, 17, 2, generator=g)
    poses = torch.cat([k, k[..., :1]], -1)*.25
    optimiser, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(60):
        loss = model.loss(k, poses, g)
        optimiser.zero_grad(); half_square(loss).backward(); optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.parameters())
    assert losses[-1] < .7*losses[0]

# --- DiffPose

@torch.no_grad()
def test_diffpose(place):
    from diffhpe.diffpose import RELEASED_TIMES, diffpose_schedule, refine_as_released, released_diffpose
    from diffhpe.diffusion import predict_x0, q_sample
    from diffhpe.respacing import sample_at
    z = numbers("diffpose", place)
    model, state = released_diffpose([{f"module.{k}": v for k, v in z.under("diff/").items()}, {}]), torch.cat([z["uv"], z["xyz"]], -1)
    schedule = diffpose_schedule()
    if "schedule/betas" in z:
        near(schedule.beta, z["schedule/betas"], 1e-7)
        near(schedule.alpha_bar, z["schedule/alphas_cumprod"], 1e-6)
    near(q_sample(state, z["t"], schedule.alpha_bar, z["scaled_noise"]), z["x_t"])
    near(model.loss(state, 1., z["t"], z["scaled_noise"]), z["loss_sum_over_joints_and_channels_mean_over_batch"])
    eps = z["scaled_noise"]/z["noise_scale"]
    near(model.loss(state, z["noise_scale"], z["t"], eps), z["loss_sum_over_joints_and_channels_mean_over_batch"])
    start = z["sampling_start"]
    near(start, torch.cat([z["uv"], z["pose_xyz"]], -1))
    for name, setting in (("frame_cpn", "frame, detected"), ("frame_gt", "frame, true"), ("video_cpn", "video, detected")):
        run = z.under(f"ddim/{name}/")
        if not run: continue
        assert sorted(RELEASED_TIMES[setting]) == run["seq"].tolist()
        near(refine_as_released(model, start[..., :2], start[..., 2:], RELEASED_TIMES[setting]), run["pose"])
    run, seen, walked = z.under("ddim/eta1/"), [], []
    def denoise(x, t):
        eps = model.denoiser(x, torch.tensor([t]))
        seen.append(predict_x0(x, t, eps, schedule.alpha_bar))
        return eps
    times = run["seq"].flip(0).tolist()
    sample_at(denoise, run["start"], schedule, times, 1., step_noise=dict(zip(times, run["noise"])), callback=lambda t, x: walked.append(x))
    near(torch.stack(seen), run["x0"])
    if "xs" in run: near(torch.stack([run["start"], *walked]), run["xs"])

# --- a file, whoever wrote it

@pytest.mark.parametrize("name, prefix, system", [("d3dp", "model/", "D3DP"), ("diffpose", "diff/", "DiffPose"), ("diffpose", "pose/", "DiffPose"), ("csdi", "tcd/model/", "CSDI"),
                                                  ("csdi", "lift/model/", "CSDI"), ("csdi", "jointwise/model/", "CSDI"), ("mixste243", "model/", "MixSTE")])
def test_a_released_file_is_recognised(name, prefix, system, place, tmp_path):
    "Saved as its release saves it, a file becomes the model of its weights, which says in one sentence what it is."
    from diffhpe.released import load_released
    w = numbers(name, place).under(prefix)
    if not w: pytest.skip(f"the part in tests/data has no weights {prefix}")
    moduled, said = {f"module.{k}": v for k, v in w.items()}, []
    beside = {"epoch": 7, "lr": 1e-5, "random_state": np.random.RandomState(3), "optimizer": {}}
    torch.save({"D3DP": beside | {"model_pos": moduled}, "MixSTE": beside | {"model_pos": moduled}, "DiffPose": [moduled, {}, 80, 5, dict(w)]}.get(system, dict(w)), tmp_path/"file.pth")
    model, plain = load_released(tmp_path/"file.pth", tell=said.append), load_released(dict(w))
    assert type(model) is type(plain) and all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())
    assert len(said) == 1 and f"holds {system}" in said[0] and "parameters" in said[0] and "\n" not in said[0]
    with pytest.raises(ValueError, match=f"holds {system}.*DiffHPE.* is needed"): load_released(tmp_path/"file.pth", system="DiffHPE")

# --- the lifter

@pytest.fixture(scope="module")
def little_models(tmp_path_factory):
    "Folders of a MixSTE, a D3DP and both DiffPoses of nine frames that have learnt for a moment what a body looks like."
    from diffhpe.checkpoints import save_checkpoint
    from diffhpe.clips import WindowSet
    from diffhpe.d3dp import D3DP
    from diffhpe.datasets import load_dataset
    from diffhpe.diffpose import DiffPoseLifter
    from diffhpe.mixste import MixSTE
    windows, sizes, folder = WindowSet(load_dataset("synthetic", max_clips=8).train, 9), dict(n_frames=9, channels=16, depth=1, n_heads=4), tmp_path_factory.mktemp("models")
    keypoints, poses, *_ = windows.evaluation_batch(windows.evaluation_index(160))
    def learnt(model, loss, steps):
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
        for i in range(steps):
            some = slice(32*(i % 5), 32*(i % 5) + 32)
            optimiser.zero_grad(); loss(model, keypoints[some], poses[some], i).backward(); optimiser.step()
        return model
    torch.manual_seed(0)
    own = lambda m, k, p, i: m.loss(k, p, torch.Generator().manual_seed(i))
    mixste = learnt(MixSTE(drop_path=0., **sizes), lambda m, k, p, i: (m(k) - p).norm(dim=-1).mean(), 60)
    models = dict(mixste=mixste, d3dp=learnt(D3DP(drop_path=0., **sizes), own, 60))
    for name, form in (("diffpose", "paper"), ("diffpose-release", "release")):
        models[name] = learnt(DiffPoseLifter(mixste, form=form, n_frames=9, channels=16, n_layers=1).prepare(keypoints, poses), own, 60)
    return {name: save_checkpoint(model.eval(), folder/name) for name, model in models.items()}

@pytest.mark.parametrize("name, several, usual", [("d3dp", True, 10), ("diffpose", True, 5), ("diffpose-release", False, None), ("mixste", False, None)])
def test_the_lifter_with_a_peer(little_models, name, several, usual, tmp_path):
    "From the example's keypoints to motion, in Python and by the command, and what a model cannot be asked is one sentence."
    from diffhpe.command import example_clip, lift_file
    from diffhpe.lifted_files import read_lifted
    from diffhpe.lifter import Lifter
    rows, file = json.loads(example_clip().read_text()), tmp_path/"walk.json"
    file.write_text(json.dumps(rows | dict(instance_info=rows["instance_info"][:40])))
    lifter = Lifter.load(little_models[name])
    def lift(**kwargs): return lift_file(file, lifter, (1920, 1080), "coco", say=str, **kwargs)[0]
    first, other = lift(hypotheses=3), lift(hypotheses=3, seed=1)
    H = 3 if several else 1
    assert (first.poses.shape, first.hypotheses.shape, first.spread.shape, first.trajectory.shape) == ((40, 17, 3), (H, 40, 17, 3), (40, 17), (40, 3))
    assert (first.trajectory[:, 2] > 0).all()
    if several:
        assert (first.spread[:, 1:] > 0).all() and (other.hypotheses[:, :, 1:] != first.hypotheses[:, :, 1:]).all()
        np.testing.assert_array_equal(lift(hypotheses=3, n_steps=usual).poses, first.poses)       # the steps that are usual for it
        near(lift(hypotheses=3, rays=0).poses, lift(hypotheses=3, rays=0).hypotheses.mean(0), 1e-5)
        assert {a: lift(hypotheses=3, aggregate=a).poses.shape for a in ("medoid", "geometric_median", "jpma")} == dict.fromkeys(("medoid", "geometric_median", "jpma"), (40, 17, 3))
        assert not np.array_equal(lift(hypotheses=3, n_steps=2).poses, first.poses)
        with pytest.raises(ValueError, match="n_steps=0 is asked for; a whole number from 1 to"): lift(n_steps=0)
    else:
        assert first.spread.max() == 0 and np.array_equal(first.poses, other.poses)
        with pytest.raises(ValueError, match="n_steps=3 does not apply to this .*, which has one answer"): lift(n_steps=3)
    with pytest.raises(ValueError, match="sampler='ddpm' does not apply to this"): lift(sampler="ddpm")
    def command(*more):
        asked = [Path(sys.executable).parent/"diffhpe_lift", file, "--size", "1920x1080", "--layout", "coco", "--weights", little_models[name], "--hypotheses", 3, *more]
        return subprocess.run(list(map(str, asked)), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path)
    done = command("--out", "walk.npz")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(read_lifted(tmp_path/"walk.npz").hypotheses, first.hypotheses, atol=1e-5)
    if name != "d3dp": return
    wrong = command("--out", "other.npz", "--sampler", "ddpm")
    assert wrong.returncode == 1 and wrong.stderr.strip().count("\n") == 0 and "sampler='ddpm' does not apply to this" in wrong.stderr
    assert not (tmp_path/"other.npz").exists()
