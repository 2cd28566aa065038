"The lifter as its users meet it: a detector's file through the command, real motion, long clips, bad input."
import inspect, json, subprocess, sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from fastcore.docments import docments

import diffhpe
from diffhpe.camera import h36m_cameras
from diffhpe.command import example_clip, lift_command, lift_file
from diffhpe.joint_tables import import_recording
from diffhpe.keypoint_files import open_keypoint_file
from diffhpe.lifted import LiftedMotion
from diffhpe.lifted_files import read_lifted
from diffhpe.lifter import SMOOTH, Lifter, LiftOptions, smoothed
from diffhpe.models import DiffHPE
from diffhpe.skeleton import H36M_17
from diffhpe.trajectory import Intrinsics, root_trajectory
from diffhpe.uncertainty import Calibration
from diffhpe.windows import border_ratio, window_starts
from diffhpe.write import write

DATA = Path(__file__).parent/"data"
COMMAND = Path(sys.executable).with_name("diffhpe_lift")

@pytest.fixture(scope="module")
def lifter(): return Lifter.load()

@pytest.fixture(scope="module")
def real_views():
    "A recorded walk forth and back for nine seconds, as two of Human3.6M's cameras would see it: pixels, camera."
    walk = import_recording(DATA/"131_01.bvh").world.astype(float)
    walk = walk - walk.mean((0, 1))*(1, 1, 0)
    there_and_back = np.concatenate([walk, walk[-2:0:-1]])
    motion = np.concatenate([there_and_back]*(1 + 450//len(there_and_back)))[:450]
    return [(c.project(c.world_to_camera(motion)), c) for c in h36m_cameras("S9")[:2]]

@pytest.mark.parametrize("sampler", ["fast", "ddpm"])
def test_nothing_jumps_at_the_borders_of_windows(lifter, real_views, sampler):
    frames = 200 if sampler == "ddpm" else None
    def ratio(pixels, camera):
        pixels = pixels[:frames]
        motion = lifter(pixels, camera.resolution, "h36m", hypotheses=2 if sampler == "ddpm" else 5, sampler=sampler)
        return border_ratio(motion.poses, window_starts(len(pixels), overlap=18))
    ratios = [ratio(*view) for view in real_views[:1 if sampler == "ddpm" else 2]]   # ddpm is slow
    assert np.mean(ratios) <= 1.10, ratios

def test_the_same_call_gives_the_same_motion_and_a_part_of_a_clip_its_part(lifter, real_views):
    (pixels, camera), _ = real_views
    whole = lifter(pixels, camera.resolution, "h36m")
    assert np.array_equal(whole.hypotheses, lifter(pixels, camera.resolution, "h36m").hypotheses)
    assert not np.array_equal(whole.hypotheses, lifter(pixels, camera.resolution, "h36m", seed=1).hypotheses)
    assert np.linalg.norm(whole.poses[:200] - lifter(pixels[:200], camera.resolution, "h36m").poses,
                          axis=-1).mean() < .03

@pytest.mark.parametrize("frames", [1, 2, 26, 27, 28])
def test_clips_shorter_than_a_window(lifter, real_views, frames):
    pixels, camera = real_views[0]
    result = lifter(pixels[:frames], camera.resolution, "h36m")
    assert result.poses.shape == (frames, 17, 3) and np.isfinite(result.trajectory).all()
    assert .3 < np.linalg.norm(result.poses[:, 10] - result.poses[:, 3], axis=-1).mean() < 3  # the size of a person

def test_a_small_figure_at_the_edge_is_lifted_like_a_large_one(lifter, real_views):
    pixels, camera = real_views[0]
    lens, wide = (Intrinsics(camera.focal, camera.center, camera.resolution),
                  Intrinsics([f*.3 for f in camera.focal], camera.center, camera.resolution))
    c, s = np.cos(.8), np.sin(.8)
    pan = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])  # the same place, another direction and lens
    elsewhere = wide.project(np.concatenate([lens.rays(pixels), np.ones((*pixels.shape[:2], 1))], -1) @ pan.T)
    ahead = lifter(pixels, camera.resolution, "h36m", intrinsics=lens)
    aside = lifter(elsewhere, camera.resolution, "h36m", intrinsics=wide)
    # small, and at the right
    assert elsewhere[..., 0].max() - elsewhere[..., 0].min() < 300 and elsewhere[..., 0].min() > 600
    assert np.linalg.norm(ahead.poses @ pan.T - aside.poses, axis=-1).mean() < .04
    assert np.linalg.norm(ahead.trajectory @ pan.T - aside.trajectory, axis=-1).mean() < .2
    plain = lifter(elsewhere, camera.resolution, "h36m", intrinsics=wide, framed=False)
    assert np.linalg.norm(ahead.poses @ pan.T - plain.poses, axis=-1).mean() > .1

def test_missing_joints_and_nan(lifter, real_views):
    pixels, camera = real_views[0]
    holes = pixels.copy(); holes[100:112] = np.nan; holes[::3, 13] = np.nan
    result = lifter(holes, camera.resolution, "h36m")
    assert np.isfinite(result.poses).all() and np.isfinite(result.trajectory).all()
    assert np.isnan(result.keypoints[100:112]).all() and (result.confidence[100:112] == 0).all()

# --- frame rates; the model is small and knows nothing, so that no number of particular weights counts

SIZE, LENS = (1000, 1000), Intrinsics((900, 900), (500, 500), (1000, 1000))

@pytest.fixture(scope="module")
def ignorant():
    "A lifter whose model answers anything to anything, but not the same."
    torch.manual_seed(0)
    model = DiffHPE(channels=8, n_blocks=1)
    for p in model.parameters(): torch.nn.init.normal_(p, std=.3)
    return Lifter(model)

def drift(seconds, fps):
    "Pixels (F, 17, 2) of joints that move along lines, evenly."
    t, rng = np.arange(round(seconds*fps) + 1)[:, None, None]/fps, np.random.default_rng(0)
    return rng.uniform(300, 600, (17, 2)) + t*rng.uniform(-60, 60, (17, 2))

@pytest.mark.parametrize("fps", [5, 10, 24, 30, 50, 60, 120])
def test_gaps_are_counted_in_seconds_of_the_video(ignorant, fps):
    whole, most = drift(2, fps), int(.5*fps)  # frames that are away for half a second at most
    lift = lambda pixels: ignorant.lift(pixels, LENS, fps, hypotheses=1, sampler="ddim", n_steps=1)
    def away(n): holes = whole.copy(); holes[2:2 + n, 13] = np.nan; return holes
    np.testing.assert_allclose(lift(away(most)), lift(whole), atol=1e-4)  # a line through the gap is the truth here
    assert np.abs(lift(away(most + 1)) - lift(whole)).max() > .01

def test_motion_between_the_model_s_frames_is_smooth(ignorant):
    "Straight lines there would have no acceleration in half of the frames."
    motion, = ignorant.lift(drift(2, 120), LENS, 120, hypotheses=1, sampler="ddim", n_steps=1, smooth=0)
    a = np.linalg.norm(np.diff(motion, 2, axis=0), axis=-1)[:, 1:]
    assert (a < .05*np.median(a)).mean() < .02

def test_names_of_the_lifter_are_its_own():
    modules = [p.stem for p in Path(diffhpe.__file__).parent.glob("[a-z]*.py")]
    names = {m: set(import_module(f"diffhpe.{m}").__all__) for m in modules}
    assert {n: m for m, public in names.items() for n in public & names["lifter"] if m != "lifter"} == {}

def test_importing_the_lifter_loads_little_beside_pytorch():
    "What draws, reads notebooks or reads motion capture is loaded by those who use it, and so are SciPy's parts."
    others = ["IPython", "matplotlib", "nbformat", "papermill", "PIL", "scipy.interpolate", "scipy.ndimage",
              "scipy.optimize"]
    loaded = f"import sys; from diffhpe.lifter import Lifter; print(*(m for m in {others} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == []

# --- every argument does what it says, at a rate that is not the models' own; what is asked holds for any weights

FPS, WRIST = 30, 13

@pytest.fixture(scope="module")
def lift(lifter, real_views):
    "The call, on two seconds with a detector's noise; keywords replace its arguments."
    pixels, camera = real_views[0]
    noise = np.random.default_rng(0).normal(0, 4, (60, 17, 2))
    given = dict(keypoints=pixels[:60] + noise, image_size=camera.resolution, layout="h36m", fps=FPS,
                 confidence=np.full((60, 17), .9))
    def call(change=lambda given: {}, **options): return lifter(**{**given, **change(given), **options})
    return call

def trembling(x): return np.linalg.norm(np.diff(x, 2, axis=0), axis=-1).mean()
def depth(motion): return np.median(motion.trajectory[:, 2])
def apart(a, b): return np.abs(a - b).max()
def same(a, b): return apart(a.hypotheses, b.hypotheses) < 1e-4 and apart(a.trajectory, b.trajectory) < 1e-3

def uneven(motion):
    "Standard deviation of the bones' lengths, in metres."
    bones = [motion.poses[:, c] - motion.poses[:, p] for p, c in H36M_17.segments]
    return np.linalg.norm(bones, axis=-1).std(1).mean()

def trusted(value): return lambda given: dict(confidence=np.where(np.arange(17) == WRIST, value, given["confidence"]))
def away(n):
    "A wrist that is not found in some frames from the 20th on."
    def change(given):
        keypoints = given["keypoints"].copy(); keypoints[20:20 + n, WRIST] = np.nan
        return dict(keypoints=keypoints)
    return change

def shifted(confidence):
    "A wrist that the detector puts elsewhere, with this confidence."
    def change(given):
        keypoints = given["keypoints"].copy(); keypoints[:, WRIST] += 40, 40
        return dict(keypoints=keypoints, **trusted(confidence)(given))
    return change

def in_a_mirror(given):
    keypoints = given["keypoints"][:, list(H36M_17.mirror)]*(-1, 1) + (given["image_size"][0], 0)
    return dict(keypoints=keypoints, confidence=given["confidence"][:, list(H36M_17.mirror)])

def root_of(motion, **options):
    "The root from a result, by the function that the call should use."
    lens = Intrinsics.from_field_of_view(motion.image_size)
    return root_trajectory(motion.poses, motion.keypoints, lens, motion.confidence, acceleration=1., **options)[0]

def pulled(lift, confidence):
    "How far a wrist that is elsewhere, with this confidence, pulls the root along, in metres."
    off, plain = lift(shifted(confidence), rays=0), lift(trusted(confidence), rays=0)
    return np.linalg.norm(off.trajectory - root_of(replace(off, keypoints=plain.keypoints), fps=FPS), axis=-1).mean()

def fps_reaches_the_root(lift):
    motion, fast = lift(rays=0), lift(fps=2*FPS, rays=0)
    np.testing.assert_allclose(motion.trajectory, root_of(motion, fps=FPS), atol=1e-4)
    assert trembling(root_of(motion, fps=2*FPS)) < .9*trembling(motion.trajectory) # four times as stiff
    assert (motion.fps, fast.fps) == (FPS, 2*FPS) and not same(motion, fast)

def confidence_weighs_the_root(lift): assert 0 < pulled(lift, .35) < .8*pulled(lift, .95)

def threshold_hides(lift):
    seen, hidden = lift(trusted(.4)), lift(trusted(.4), threshold=.5)
    assert np.isfinite(seen.keypoints).all() and np.isnan(hidden.keypoints).all((0, 2)).nonzero()[0].tolist() == [WRIST]
    assert not same(seen, hidden)

def fill_is_in_seconds(lift):
    a, b, c = (lift(away(10), fill=fill) for fill in (.5, .334, .3))  # 10 frames are a third of a second
    assert same(a, b) and not same(a, c) and np.isnan(a.keypoints[20:30, WRIST]).all()

def test_what_a_joint_rests_on_is_said_and_written(lift, tmp_path):
    bridged, hidden = lift(away(10)), lift(away(10), fill=.3)
    for motion, n in ((bridged, 1), (hidden, 0)):
        expected = np.full((60, 17), 2); expected[20:30, WRIST] = n
        assert np.array_equal(motion.origin, expected)
        for suffix in (".npz", ".json"): write(motion, tmp_path/f"motion{suffix}")
        assert np.array_equal(read_lifted(tmp_path/"motion.npz").origin, expected)
        text = json.loads((tmp_path/"motion.json").read_text())
        assert text["people"][0]["origin"] == expected.tolist() and text["origins"] == ["hidden", "bridged", "seen"]

def smoothing_smooths(lift):
    raw, little, usual = (lift(rays=0, **options) for options in (dict(smooth=0), dict(smooth=.04), {}))
    assert trembling(raw.poses) > trembling(little.poses) > trembling(usual.poses)
    np.testing.assert_allclose(usual.hypotheses, smoothed(raw.hypotheses, SMOOTH*FPS), atol=1e-5)
    np.testing.assert_allclose(usual.poses, usual.hypotheses.mean(0), atol=1e-5)

def missed(motion, keypoints):
    "How far the motion is from keypoints in its picture, in pixels."
    off = Intrinsics.from_field_of_view(motion.image_size).project(motion.placed) - keypoints
    return np.linalg.norm(off, axis=-1)

def rays_bring_joints_to_their_keypoints(lift):
    none, half, full = motions = [lift(rays=r) for r in (0, .5, 1)]
    far = [missed(m, m.keypoints).mean() for m in motions]
    assert far[2] < .75*far[0] and far[2] < far[1] < far[0]               # of which 5 px are the keypoints' noise
    for m in motions: np.testing.assert_allclose(m.placed[..., 2], none.placed[..., 2], atol=1e-4)
    np.testing.assert_allclose(full.spread, none.spread, atol=1e-5)  # the hypotheses go along
    np.testing.assert_allclose(full.poses, full.hypotheses.mean(0), atol=1e-5)
    assert trembling(full.poses) < .7*trembling(lift(rays=0, smooth=0).poses)
    # what the detector is not sure of moves less
    sure, unsure = (missed(lift(shifted(c)), lift().keypoints)[:, WRIST].mean() for c in (.9, .31))
    assert unsure < sure

def exchanged(given):
    "Legs whose sides the detector takes for each other in ten frames."
    right, left = [1, 2, 3], [4, 5, 6]
    keypoints, confidence = given["keypoints"].copy(), given["confidence"].copy()
    keypoints[20:30, right + left] = keypoints[20:30, left + right]
    return dict(keypoints=keypoints, confidence=confidence)

def sides_are_put_back(lift):
    assert same(lift(exchanged, say=str), lift()) and not same(lift(exchanged, keep_sides=True), lift())

def what_was_mended_is_said(lift):
    said = []; lift(say=said.append); assert said == []
    lift(exchanged, say=said.append, person="7")
    assert said == ["person 7: left and right were exchanged and are put back: the legs in 10 of 60 frames"]
    with pytest.warns(UserWarning, match="the legs in 10 of 60 frames"): lift(exchanged)

def hypotheses_are_counted(lift): assert [len(lift(hypotheses=n).hypotheses) for n in (1, 2, 7)] == [1, 2, 7]
def steps_are_counted(lift): assert same(lift(n_steps=5), lift()) and not same(lift(n_steps=2), lift())
def sampler_is_asked(lift): assert not same(lift(), lift(sampler="ddim", n_steps=5))
def seed_counts(lift): assert same(lift(seed=0), lift()) and not same(lift(seed=1), lift())
def framing_counts(lift): assert not same(lift(framed=False), lift())
def aggregate_chooses(lift):
    medoid = lift(aggregate="medoid")
    assert min(apart(medoid.poses, h) for h in medoid.hypotheses) < 1e-6 and apart(medoid.poses, lift().poses) > 1e-4

def windows_share_frames(lift):
    assert same(lift(overlap=18), lift()) and not same(lift(overlap=9), lift())  # of 27; 18 unless told otherwise

def recentring_moves_all_alike(lift):
    own, usual = (lift(recentred=r, smooth=0).hypotheses for r in (False, True))
    np.testing.assert_allclose(own - own.mean(0), usual - usual.mean(0), atol=1e-4)
    assert apart(own.mean(0), usual.mean(0)) > .001

def a_wider_lens_is_nearer(lift): assert depth(lift(field_of_view=90)) < depth(lift()) < depth(lift(field_of_view=40))
def intrinsics_win(lift):
    lens = Intrinsics.from_field_of_view(lift().image_size, 90)
    for options in ({}, dict(field_of_view=40)): assert same(lift(intrinsics=lens, **options), lift(field_of_view=90))

def coherent_bones_are_constant(lift): assert uneven(lift(coherent=True)) < 1e-4 < uneven(lift())
def a_mirror_is_undone(lift):
    assert same(lift(in_a_mirror, mirrored=True), lift()) and not same(lift(in_a_mirror), lift())

def a_person_keeps_the_name(lift): assert (lift(person="7").person, lift().person) == ("7", "")
def layouts_differ(lift): assert not same(lift(layout="coco"), lift())
def a_larger_picture_is_of_a_longer_lens(lift): assert depth(lift(image_size=(2000, 2000))) > 1.5*depth(lift())

ARGUMENTS = dict(
    fps=fps_reaches_the_root, confidence=confidence_weighs_the_root, threshold=threshold_hides, fill=fill_is_in_seconds,
    smooth=smoothing_smooths, hypotheses=hypotheses_are_counted, n_steps=steps_are_counted, sampler=sampler_is_asked,
    seed=seed_counts, framed=framing_counts, overlap=windows_share_frames, recentred=recentring_moves_all_alike,
    aggregate=aggregate_chooses, field_of_view=a_wider_lens_is_nearer,
    intrinsics=intrinsics_win, coherent=coherent_bones_are_constant, mirrored=a_mirror_is_undone,
    rays=rays_bring_joints_to_their_keypoints, keep_sides=sides_are_put_back, say=what_was_mended_is_said,
    person=a_person_keeps_the_name, layout=layouts_differ, image_size=a_larger_picture_is_of_a_longer_lens)

@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_of_the_call_changes_the_motion_as_it_says(lift, argument): ARGUMENTS[argument](lift)

def test_no_argument_of_the_call_is_forgotten():
    elsewhere = {"self", "keypoints", "progress_bar"}  # the bar: in bounded memory, below
    assert set(inspect.signature(Lifter.__call__).parameters) - elsewhere == set(ARGUMENTS)

def test_every_argument_of_the_call_is_explained():
    for f in (Lifter.__call__, Lifter.lift):
        told = docments(f, returns=False)
        assert [name for name, comment in told.items() if not comment and name != "self"] == []
        assert set(inspect.signature(LiftOptions).parameters) < set(told) and "seconds" in told["smooth"]

def in_other_units(scale, shift=0): return lambda given: dict(keypoints=given["keypoints"]*scale + shift)

def test_keypoints_are_held_against_the_picture(lift):
    w, h = lift().image_size
    said = []
    shares = lift(in_other_units(1/np.array([w, h])), say=said.append)
    assert same(shares, lift()) and said == [f"keypoints from 0 to 1: shares of the picture, {w:g}x{h:g}, assumed"]
    with pytest.raises(ValueError, match="shares of the picture from 0 to 1, are allowed"):
        lift(in_other_units(2/np.array([w, h]), -1))
    with pytest.raises(ValueError, match="of the joints lie outside of the pictures, if their size is 100x100"):
        lift(image_size=(100, 100))
    keypoints = lift().keypoints
    with pytest.warns(UserWarning, match="of the joints lie outside of the pictures"):
        lift(image_size=(w, np.quantile(keypoints[..., 1], .7)))             # a picture that ends at the knees

def test_a_track_that_goes_on_with_another_person_is_noticed(lift):
    def other(given):
        keypoints = given["keypoints"].copy(); keypoints[30:45] *= .3
        return dict(keypoints=keypoints)
    said = []; lift(other, say=said.append)
    assert len(said) == 1 and "leap farther than a person can, 2 times, first at 1.00 s" in said[0]

def test_hidden_joints_get_the_regions_of_hidden_joints(lifter, lift):
    calibration = Calibration((.5, .9), ((.05,)*3,)*17, (((1.,)*17, (2.,)*17), ((3.,)*17, (5.,)*17)))
    motion = lift(away(10))  # also where the gap was bridged
    for level, seen, hidden in ((.5, 1, 2), (.9, 3, 5)):
        factor = Lifter(lifter.model, calibration).regions(motion, level)/calibration.scales(motion.hypotheses)
        np.testing.assert_allclose(factor[20:30, WRIST], hidden, rtol=1e-5)
        factor[20:30, WRIST] = seen
        np.testing.assert_allclose(factor, seen, rtol=1e-5)

# --- the same through the command, which is asked what it hands on

class Spy:
    "A lifter that keeps what it is given."
    motion, loaded, given = None, None, None
    @classmethod
    def load(cls, *how): cls.loaded = how; return cls()
    def __call__(self, keypoints, size, layout, confidence, fps, **options):
        named = dict(keypoints=keypoints, size=size, layout=layout, confidence=confidence, fps=fps)
        type(self).given = named | options
        return replace(self.motion, person=options["person"])

def two_walkers(path, step=1):
    "The example's walker as 3, and as 8 farther right in twenty of the sixty frames; frame numbers rise by some step."
    rows = json.loads(example_clip().read_text())["instance_info"][:60]
    joints = [np.column_stack([r["instances"][0]["keypoints"], r["instances"][0]["keypoint_scores"]]) for r in rows]
    people = [(f, 3, j) for f, j in enumerate(joints)] + [(f, 8, j + (500, 0, 0)) for f, j in enumerate(joints[:20])]
    path.write_text(json.dumps([dict(image_id=f"{step*f}.jpg", keypoints=j.ravel().tolist(), score=2., idx=who)
                                for f, who, j in sorted(people, key=lambda p: p[:2])]))

HANDED = dict(hypotheses=3, sampler="ddpm", aggregate="jpma", coherent=True, fill=.2, smooth=.01, threshold=.6,
              mirrored=True, seed=4, rays=.5, keep_sides=True)

@pytest.fixture
def asked(tmp_path, monkeypatch, lift):
    "What the lifter is asked by a command with some options."
    short = {name: getattr(lift(), name)[:3] for name in ("poses", "trajectory", "keypoints", "confidence")}
    monkeypatch.setattr(Spy, "motion", LiftedMotion(**short))
    monkeypatch.setattr("diffhpe.command.Lifter", Spy)
    monkeypatch.chdir(tmp_path); two_walkers(Path("k.json"))
    def ask(**options):
        lift_command.__wrapped__("k.json", **{**dict(size="1920x1080", layout="coco", out="o.npz"), **options})
        return Spy.given
    return ask

def test_the_command_hands_on_every_option(asked):
    usual, parameters = asked(), inspect.signature(Lifter.__call__).parameters
    for name, value in HANDED.items():
        assert usual[name] == parameters[name].default != value  # the defaults are those of the call
        assert asked(**{name: value})[name] == value
    assert (asked()["field_of_view"], asked(fov=80)["field_of_view"]) == (60, 80)
    assert "intrinsics" not in usual
    assert asked(focal=1500.)["intrinsics"] == Intrinsics((1500, 1500), (960, 540), (1920, 1080))
    assert (usual["fps"], asked(fps=30.)["fps"]) == (50, 30)
    assert (usual["size"], asked(size="1280x720")["size"]) == ((1920, 1080), (1280, 720))
    assert (usual["layout"], asked(layout="h36m")["layout"]) == ("coco", "h36m")
    for who, found in ((usual, (60, "3")), (asked(person="8"), (20, "8"))):
        assert (len(who["keypoints"]), who["person"]) == found
    asked(weights="mine", device="cpu"); assert Spy.loaded == ("mine", "cpu")
    for option, suffix in dict(out="npz", bvh="bvh", view="html", csv="csv", film="gif").items():
        asked(**{option: f"{option}.{suffix}"}); assert Path(f"{option}.{suffix}").exists()
    others = {"keypoints", "fov", "focal", "fps", "size", "layout", "person", "weights", "device", "detector"}
    others |= {"out", "bvh", "view", "csv", "film"}
    assert set(inspect.signature(lift_command.__wrapped__).parameters) == others | set(HANDED)

@pytest.mark.parametrize("options, detector", [({}, "mediapipe"), (dict(detector="rtmlib"), "rtmlib")])
def test_a_film_is_given_to_the_detector_that_is_asked_for(asked, monkeypatch, options, detector):
    given = []
    def film_keypoints(film, name, folder, bar, say): given.append((film.name, name)); return open_keypoint_file("k.json")
    monkeypatch.setattr("diffhpe.command.film_keypoints", film_keypoints)
    lift_command.__wrapped__("walk.MP4", size="1920x1080", layout="coco", out="o.npz", **options)
    assert given == [("walk.MP4", detector)] and Path("o.npz").exists()

def test_a_film_without_the_extra_is_one_sentence(tmp_path):
    (tmp_path/"walk.mp4").write_bytes(b"no film")
    code = "import sys; sys.modules['cv2'] = None; from diffhpe.command import lift_command; lift_command.__wrapped__('walk.mp4')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and "pip install 'diffhpe[detect]'" in ran.stderr and "Traceback" not in ran.stderr

def test_people_whom_a_tracker_exchanges_are_noticed(lifter, tmp_path):
    two_walkers(tmp_path/"two.json")
    rows = json.loads((tmp_path/"two.json").read_text())
    for row in rows:
        if 5 <= int(row["image_id"].split(".")[0]) < 12: row["idx"] = {3: 8, 8: 3}[row["idx"]]
    (tmp_path/"two.json").write_text(json.dumps(rows))
    said = []
    lift_file(tmp_path/"two.json", lifter, (1920, 1080), "coco", "3", 50, say=said.append, hypotheses=1)
    assert len(said) == 1 and "two.json: person 3: the keypoints leap farther than a person can, 2 times" in said[0]
    assert "first at 0.10 s" in said[0]

def test_a_file_of_every_second_frame_has_half_the_rate(asked):
    two_walkers(Path("every_second.json"), 2)
    motion, = lift_file("every_second.json", Spy(), (1920, 1080), "coco", "3", 50, smooth=.02)
    assert Spy.given["fps"] == 25 and len(Spy.given["keypoints"]) == 60 and Spy.given["smooth"] == .02
    assert [m.person for m in lift_file("every_second.json", Spy(), (1920, 1080), "coco", "all", 50)] == ["3", "8"]

LONG = """
import resource, sys, numpy as np, torch
from diffhpe.lifter import Lifter
from diffhpe.models import DiffHPE
torch.manual_seed(0); torch.set_num_threads(1)
lifter = Lifter(DiffHPE(channels=8, n_blocks=1))
def lift(frames):
    t = np.arange(frames)[:, None, None]*.02
    body = np.random.default_rng(0).uniform(400, 600, (17, 2))
    pixels = body + 20*np.sin(t + np.arange(17)[:, None])
    r = lifter(pixels, (1000, 1000), "h36m", hypotheses=2, sampler="ddim", n_steps=1, progress_bar=True)
    assert r.poses.shape == (frames, 17, 3) and np.isfinite(r.poses).all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
small = lift(1000); print(small, lift(30_000) - small)
"""

def test_many_frames_in_bounded_memory():
    "A hundred thousand, by hand, take 22 s of a core; what a frame needs is the same."
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    _, more = map(float, done.stdout.split())
    assert more < 300, f"{more:.0f} MiB more for 30,000 frames than for 1,000"  # their results alone are 48 MB
    assert "lift" in done.stderr  # the progress bar

# --- the command

def run(*arguments, cwd):
    return subprocess.run([COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300)

def test_the_command_of_the_readme(tmp_path):
    done = run(example_clip(), "--size", "1920x1080", "--layout", "coco", "--out", "walk.npz", "--bvh", "walk.bvh",
               "--view", "walk.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["walk.bvh", "walk.html", "walk.npz"]
    back = read_lifted(tmp_path/"walk.npz")
    motion = back if isinstance(back, LiftedMotion) else back[0]
    assert motion.poses.shape == (300, 17, 3) and motion.hypotheses.shape == (5, 300, 17, 3) and motion.fps == 50
    assert "300 frames" in done.stdout and "50 assumed" in done.stdout and "walk.html" in done.stdout

def test_the_command_s_one_sentence(tmp_path):
    done = run("nothing.json", "--size", "1920x1080", cwd=tmp_path)
    assert (done.returncode == 1 and done.stderr.strip().count("\n") == 0 and "nothing.json" in done.stderr
            and not list(tmp_path.iterdir()))

def person(frames, of=30):
    "A file in which a person is seen in some frames only."
    rows = json.loads(example_clip().read_text())
    for row in rows["instance_info"]:
        if row["frame_id"] not in frames: row["instances"] = []
    return rows | dict(instance_info=rows["instance_info"][:of])

def changed(index, value):
    rows = person(range(30))
    instance = rows["instance_info"][3]["instances"][0]
    instance["keypoint_scores"][index] = value
    return rows

@pytest.mark.parametrize("contents, options, sentence", [
    ("", {}, "k.json"), ("[]", {}, "nobody was found"), ("{", {}, "JSON"),
    (person(range(30)), dict(layout="openpose"), "there is no layout 'openpose'"),
    (person(range(30)), dict(layout="body25"), "17 joints, and layout 'body25' has 25"),
    (person(range(30)), dict(size="1920"), "size is '1920'"),
    (person(range(30)), dict(size=None), "does not say how large"),
    (changed(2, 17), {}, "confidences reach 17"), (changed(2, -20), {}, "0 to 1 is allowed"),
    (person({4, 20}), {}, "seen in 2 of 30 frames"), (person(set()), {}, "k.json"),
    (person(range(30)), dict(fps=0.), "fps"), (person(range(30)), dict(hypotheses=0), "hypotheses=0"),
    (person(range(30)), dict(weights="nowhere"), "nowhere"), (person(range(30)), dict(threshold=2.), "threshold is 2"),
    (person(range(30)), dict(person="4"), "nobody with the id 4")])
def test_bad_input_gets_one_sentence_and_writes_nothing(tmp_path, monkeypatch, contents, options, sentence):
    monkeypatch.chdir(tmp_path)
    Path("k.json").write_text(contents if isinstance(contents, str) else json.dumps(contents))
    with pytest.raises(SystemExit) as e:
        lift_command.__wrapped__("k.json", **{**dict(size="1920x1080", layout="coco", out="walk.npz"), **options})
    assert sentence in str(e.value) and "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["k.json"]

def test_every_detector_s_file_gives_the_same_motion(tmp_path):
    rows = json.loads(example_clip().read_text())["instance_info"][:60]
    joints = [np.column_stack([r["instances"][0]["keypoints"], r["instances"][0]["keypoint_scores"]]) for r in rows]
    (tmp_path/"alphapose.json").write_text(json.dumps([dict(image_id=f"{f}.jpg", keypoints=j.ravel().tolist(), score=2.,
                                                            idx=1) for f, j in enumerate(joints)]))
    (tmp_path/"arrays.json").write_text(json.dumps(dict(keypoints=[[j[:, :2].tolist()] for j in joints],
                                                        scores=[[j[:, 2].tolist()] for j in joints])))
    np.savez(tmp_path/"arrays.npz", keypoints=np.array(joints)[..., :2], confidence=np.array(joints)[..., 2])
    for name in ("alphapose.json", "arrays.json", "arrays.npz"):
        lift_command.__wrapped__(str(tmp_path/name), size="1920x1080", layout="coco", fps=50., hypotheses=1,
                                 out=str(tmp_path/f"{name}.out.npz"))
    first, *others = (read_lifted(p) for p in sorted(tmp_path.glob("*.out.npz")))
    poses = lambda m: (m if isinstance(m, LiftedMotion) else m[0]).poses
    for other in others: np.testing.assert_allclose(poses(other), poses(first), atol=1e-5)
