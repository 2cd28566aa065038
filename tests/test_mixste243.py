"MixSTE at 243 frames against numbers of its release: windows, poses, flip average, loss, metrics."
import numpy as np
import pytest
import torch

from test_peers import PLACES, near, numbers

RENAMED = dict(Spatial_patch_to_embedding="embed", Spatial_pos_embed="spatial_position", Temporal_pos_embed="temporal_position", STEblocks="spatial_blocks",
               TTEblocks="temporal_blocks", Spatial_norm="spatial_norm", Temporal_norm="temporal_norm", attn="attention", fc1="0", fc2="2") | {"head.0": "head_norm", "head.1": "head"}


@pytest.fixture(params=PLACES)
def z(request): return numbers("mixste243", request.param)


def network(z):
    from diffhpe.mixste import MixSTE
    def ours(name):
        for old, new in RENAMED.items(): name = name.replace(old, new)
        return name
    net = MixSTE(n_frames=243, channels=16, depth=2).eval()
    net.load_state_dict({ours(k): v for k, v in z.under("model/").items()})
    return net


@torch.no_grad()
def test_poses_and_flip_average(z):
    from diffhpe.cuts import aligned_windows, cut
    from diffhpe.mixste import flip_average
    net, starts = network(z), aligned_windows([len(z["x2d"])], 243)[:, 1]
    if "window_starts" in z: assert starts.tolist() == z["window_starts"].tolist()
    x2d = torch.from_numpy(cut(z["x2d"].numpy(), starts, 243))
    every = 243//z["pose_raw"].shape[1]                                     # the part in tests/data holds every ninth frame
    near(net(x2d)[:, ::every], z["pose_raw"], 1e-5)
    near(flip_average(net, x2d)[:, ::every], z["pose_flip_averaged"], 1e-5)
    near(net.head(net.features(x2d))[:, ::every], z["pose_raw"], 1e-5)


def test_loss_and_metrics(z):
    from diffhpe.cuts import aligned_windows, cut
    from diffhpe.metrics import mpjpe, mpjve, n_mpjpe, p_mpjpe
    from diffhpe.mixste import MIXSTE_JOINT_WEIGHTS, mixste_loss
    if "scored_target" not in z: pytest.skip("the part in tests/data has no scored poses: the loss and metrics of a release need whole windows")
    p, g = z["scored_prediction"], z["scored_target"]
    near(torch.from_numpy(cut(z["x3d"].numpy(), aligned_windows([400], 243)[:, 1], 243)), g)
    assert z["joint_weights"].tolist() == list(MIXSTE_JOINT_WEIGHTS)
    weighted, velocity = mixste_loss(p, g, smoothness=0, velocity=0), mixste_loss(p, g, weights=[0]*17, velocity=1)
    near(weighted, z["loss/weighted_mpjpe"], 1e-5)
    near(velocity, z["loss/velocity"], 1e-5)
    near(mixste_loss(p, g, smoothness=1, velocity=0) - weighted, z["loss/smoothness"], 1e-5)
    near(mixste_loss(p, g), z["loss/total"], 1e-5)
    near(mpjpe(p, g), z["metric/mpjpe_root_counted"], 1e-5)
    near(p_mpjpe(p, g), z["metric/p_mpjpe"], 1e-5)
    near(n_mpjpe(p, g), z["metric/n_mpjpe"], 1e-5)
    near(mpjve(p, g), z["metric/mpjve_within_windows"], 1e-5)
    near(mpjve(p.flatten(0, 1), g.flatten(0, 1)), z["metric/mpjve_release"], 1e-5)          # windows end to end, jumps and all


def test_one_frame_hears_all_others():
    "At 243 frames as at 27: news of the first frame reaches the last, in the prediction and in the gradient."
    from diffhpe.mixste import MixSTE
    torch.manual_seed(0)
    net, x = MixSTE(n_frames=243, channels=16, depth=1), torch.randn(1, 243, 17, 2).requires_grad_()
    net(x)[0, -1].square().sum().backward()
    assert (x.grad[0].abs().amax((1, 2)) > 0).all()


def test_training_at_243_frames():
    "MixSTE's own loss falls on windows of this length."
    from diffhpe.mixste import MixSTE, mixste_loss
    torch.manual_seed(0)
    net = MixSTE(n_frames=243, channels=16, depth=1, drop_path=0.)
    x = torch.randn(1, 243, 17, 2).cumsum(1)*.01
    poses, optimiser, losses = torch.cat([x, x[..., :1]], -1), torch.optim.AdamW(net.parameters(), 3e-3), []
    for _ in range(12):
        loss = mixste_loss(net(x), poses)
        optimiser.zero_grad(); loss.backward(); optimiser.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and losses[-1] < .7*losses[0]


def test_released_presets_test_to_the_last_frame():
    "A clip of 100 frames at 27 is tested at 0, 27, 54 and 73 by the presets of the long models' releases, where all others stop at 54."
    from dataclasses import replace
    from diffhpe.config import PRESETS, Experiment
    from diffhpe.cuts import CUTS
    from diffhpe.datasets import load_dataset
    from diffhpe.experiments import evaluate_all
    from diffhpe.mixste import MixSTE, flip_average
    data = load_dataset("synthetic", max_clips=4)
    first = data.test[0]
    short = lambda n: replace(first, **{k: getattr(first, k)[:n] for k in ("keypoints", "poses", "root")})
    data = replace(data, test=(short(100), short(81)))
    torch.manual_seed(0)
    model = MixSTE(n_frames=27, channels=16, depth=1).eval()
    def tested(preset, **given):
        found = evaluate_all(Experiment(preset=preset, model="mixste", occ="none", n_frames=27, **given), {"mixste": model}, data, progress_bar=False)
        return found["none"]["mixste"]
    starts = dict(aligned=((0, 27, 54, 73), (0, 27, 54)), whole=((0, 27, 54), (0, 27, 54)))
    for preset in PRESETS.values():
        if "mixste" not in preset.scratch: continue
        released = preset.name in ("mixste-paper", "diffpose-paper")
        assert preset.test_windows == ("aligned" if released else "whole")
        windows, errors = starts[preset.test_windows], []
        for clip, at in zip(data.test, windows):
            for s in at:                                               # each frame of each window counts once
                x = torch.from_numpy(clip.keypoints[None, s:s + 27])
                with torch.no_grad(): p = flip_average(model, x)[0] if released else model(x)[0]
                errors += (p - p[:, :1] - torch.from_numpy(clip.poses[s:s + 27])).norm(dim=-1).mean(1).tolist()
        found = tested(preset.name)
        assert sum(row["windows"] for row in found["per_action"]) == sum(map(len, windows)) == len(errors)//27
        near(found["mpjpe"], 1000*np.mean(errors), 1e-4)
    assert {p.name for p in PRESETS.values() if p.test_windows == "aligned"} == {"mixste-paper", "diffpose-paper", "d3dp-paper"} and set(CUTS) == {"whole", "aligned"}
