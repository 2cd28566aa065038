"A stream as a program meets it: any chunks, any length, any rate, errors in between, people who leave; and the webcam's command."
import json, subprocess, sys, weakref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from diffhpe import detect, live
from diffhpe.lifter import Lifter
from diffhpe.models import DiffHPE, GraphLifter
from diffhpe.trajectory import Intrinsics

SIZE, LENS = (1000, 1000), Intrinsics.from_field_of_view((1000, 1000))
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

def ignorant(**kwargs):
    "A lifter of a small model that knows nothing; its answers are the size of a body."
    torch.manual_seed(0)
    inner = GraphLifter("2d", linear_start=True, residual=True, channels=8, n_blocks=1, n_frames=9)
    torch.nn.init.normal_(inner.conditioning.start.weight, std=.3)
    return Lifter(DiffHPE("mixste", inner, target="x0", residual=True, channels=8, n_blocks=1, n_frames=9) if kwargs else inner)

REGRESSION, DIFFUSION = ignorant(), ignorant(diffusion=True)

def walk(frames, seed=0, holes=0.):
    rng = np.random.default_rng(seed)
    x = rng.uniform(300, 700, (1, 17, 2)) + rng.normal(0, 3, (frames, 17, 2)).cumsum(0)
    x[rng.random((frames, 17)) < holes] = np.nan
    return x

def streamed(lifter, x, chunks=(), **kwargs):
    stream, found, at = lifter.stream(SIZE, "h36m", **kwargs), [], 0
    for n in [*chunks, len(x)]: found += stream.feed(x[at:at + n]); at += n
    return found + stream.finish()

def same(a, b):
    assert [p.frame for p in a] == [p.frame for p in b]
    for name in ("pose", "root", "hypotheses", "keypoints", "origin"):
        np.testing.assert_array_equal([getattr(p, name) for p in a], [getattr(p, name) for p in b])

@few
@given(frames=st.integers(1, 60), chunks=st.lists(st.integers(1, 20), max_size=4), latency=st.sampled_from([0, 1, 5, "half", "full"]),
       fps=st.sampled_from([12, 25, 30, 50, 60]), holes=st.sampled_from([0., .1, .9]))
def test_a_pose_for_each_picture_whatever_the_chunks(frames, chunks, latency, fps, holes):
    x = walk(frames, frames, holes)
    found = streamed(REGRESSION, x, latency=latency, fps=fps)
    assert [p.frame for p in found] == list(range(frames))
    assert all(np.isfinite(p.pose).all() == p.there for p in found) and (holes > .5 or all(p.there for p in found))
    same(found, streamed(REGRESSION, x, chunks, latency=latency, fps=fps))

@few
@given(frames=st.integers(1, 50), every=st.integers(1, 8), hypotheses=st.sampled_from([1, 3]), seed=st.integers(0, 3))
def test_at_full_latency_the_hypotheses_are_the_offline_lifter_s(frames, every, hypotheses, seed):
    x = walk(frames, seed, .1)
    for lifter in (REGRESSION, DIFFUSION):
        options = dict(framed=False, smooth=0, fill=0, seed=seed, hypotheses=hypotheses)
        offline = lifter.lift(x, LENS, overlap=9 - every, **options)
        found = streamed(lifter, x, latency="full", every=every, **options)
        assert all(p.there for p in found)
        mean = np.stack([p.pose for p in found])
        np.testing.assert_allclose(mean, offline.mean(0), atol=2e-5)
        if len(offline) == len(found[0].hypotheses) and (hypotheses > 1 or lifter is REGRESSION):
            np.testing.assert_allclose(np.stack([p.hypotheses for p in found], 1), offline, atol=2e-5)

@pytest.mark.parametrize("fps", [10, 24, 30, 50, 60, 120])
@pytest.mark.parametrize("latency", [0, 2, "half"])
def test_what_comes_later_than_the_latency_changes_nothing(fps, latency):
    x = walk(40); y = x.copy(); y[30:] += 40
    a, b = (streamed(REGRESSION, z, latency=latency, fps=fps) for z in (x, y))
    stream = REGRESSION.stream(SIZE, "h36m", fps, latency=latency)
    same(a[:30 - stream.latency], b[:30 - stream.latency])
    given = [stream.push(z) is not None for z in x]
    assert given == [i >= stream.latency for i in range(40)]

@few
@given(wrong=st.lists(st.sampled_from([np.zeros((16, 2)), np.zeros((17, 3)), np.full((17, 2), np.inf), "x", np.zeros(17), [[1]]]), min_size=1, max_size=3),
       at=st.integers(0, 19))
def test_a_picture_that_is_refused_is_named_and_leaves_no_trace(wrong, at):
    x = walk(20)
    stream, found = REGRESSION.stream(SIZE, "h36m"), []
    for i, z in enumerate(x):
        if i == at:
            for bad in wrong:
                with pytest.raises(ValueError, match=f"^frame {i}: ") as e: stream.push(bad)
                assert "\n" not in str(e.value)
        found.append(stream.push(z))
    same(found, streamed(REGRESSION, x))

@few
@given(gaps=st.lists(st.floats(.001, 3.), min_size=5, max_size=40), latency=st.sampled_from([0, 3]))
def test_uneven_times(gaps, latency):
    stream, times = REGRESSION.stream(SIZE, "h36m", 30, latency=latency), np.cumsum(gaps)
    found = [stream.push(z, None, float(t)) for z, t in zip(walk(len(times)), times)] + stream.finish()
    found = [p for p in found if p is not None]
    assert [p.seconds for p in found] == times.tolist()
    if latency == 0: assert all(p.there for p in found)

def test_lost_pictures_with_their_times_are_the_same_motion():
    t = np.arange(0, 2, 1/50)[:, None, None]
    x = np.random.default_rng(0).uniform(300, 700, (17, 2)) + t*np.random.default_rng(1).uniform(-60, 60, (17, 2))  # along lines
    kept = [i for i in range(100) if i % 4]
    whole, stream = streamed(REGRESSION, x, framed=False, smooth=0), REGRESSION.stream(SIZE, "h36m", framed=False, smooth=0)
    some = [stream.push(x[i], None, i/50) for i in kept]
    np.testing.assert_allclose([p.pose for p in some[3:]], [whole[i].pose for i in kept[3:]], atol=1e-4)

def test_thousands_of_pictures_in_constant_memory():
    stream, x, alive = REGRESSION.stream(SIZE, "h36m", 10, latency=5), walk(500, holes=.02), weakref.WeakSet()
    x[100:400] = np.nan                                                    # half a minute without anybody, again and again
    for n in range(3_000):
        pose = stream.push(x[n % 500])
        alive.add(stream.shots[-1])
    assert pose.frame == 2994 and len(alive) == len(stream.shots) <= stream.shots.maxlen < 30
    assert max(np.size(a) for s in stream.shots for a in vars(s).values()) == 51  # one pose at most

def test_people_who_leave_and_come_back():
    x = walk(150); x[50:110] = np.nan
    for latency, stays in ((0, 25), ("half", 25)):
        found = streamed(REGRESSION, x, latency=latency)
        there = [p.there for p in found]
        assert there[:50 + stays] == [True]*(50 + stays) and there[110:] == [True]*40 and not any(there[75:110])
    late, alone = streamed(REGRESSION, x)[110:], streamed(REGRESSION, x[110:])
    np.testing.assert_allclose([p.pose for p in late], [p.pose for p in alone], atol=1e-5)     # a visit begins like a stream

def test_the_lifter_loads_streams_only_when_asked():
    code = "import sys; from diffhpe.lifter import Lifter; print('diffhpe.stream' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

def test_every_option_of_a_stream_is_handed_on():
    x, base = walk(40, holes=.05), {}
    trust = np.full((40, 17), .5)
    def lift(lifter=DIFFUSION, **kwargs):
        stream = lifter.stream(SIZE, "h36m", **dict(hypotheses=2, n_steps=2) | kwargs)
        return np.stack([p.hypotheses.sum(0) + p.root for p in stream.feed(x, trust) + stream.finish()])
    base = lift()
    changes = [dict(latency=3), dict(hypotheses=3), dict(sampler="ddim"), dict(n_steps=3), dict(seed=1), dict(framed=False), dict(fill=0.), dict(smooth=0.),
               dict(field_of_view=90.), dict(mirrored=True), dict(threshold=.6), dict(intrinsics=Intrinsics((500, 500), (500, 500), SIZE)), dict(fps=30)]
    for change in changes: assert not np.allclose(lift(**change), base, equal_nan=True), change
    assert not np.allclose(lift(latency=4, every=1), lift(latency=4, every=5))

# --- the command

def person(scale=.05): return np.c_[walk(1)[0]*scale, np.ones(17)]

@pytest.fixture
def film(tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path/"film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for k in range(9): writer.write(np.full((48, 64, 3), 20*k, np.uint8))
    writer.release()
    return tmp_path/"film.avi"

@pytest.fixture
def mine(monkeypatch):
    "A detector that finds nobody in the first picture, and no weights to load."
    seen = iter([[]] + [[person()]]*99)
    class Mine:
        layout = "h36m"
        def __call__(self, picture, seconds): return next(seen)
    monkeypatch.setitem(detect.DETECTORS, "mine", Mine)
    monkeypatch.setattr(live.Lifter, "load", lambda *args: REGRESSION)

@pytest.mark.parametrize("latency", ["0", "half"])
def test_a_film_in_place_of_a_camera(film, mine, capsys, latency):
    live.stream_command.__wrapped__(str(film), out="-", latency=latency, detector="mine")
    lines = [json.loads(s) for s in capsys.readouterr().out.splitlines()]
    assert [n["frame"] for n in lines] == list(range(9)) and lines[0]["pose"] is None
    assert [n["seconds"] for n in lines] == [round(k/25, 4) for k in range(9)] and np.shape(lines[5]["pose"]) == (17, 3)

def test_a_camera_is_read_by_the_clock_and_let_go(mine, monkeypatch, tmp_path):
    cv2 = pytest.importorskip("cv2")
    class Webcam:
        left, released = 5, False
        def __init__(self, number): assert number == 0; Webcam.one = self
        def read(self): self.left -= 1; return (self.left >= 0, np.zeros((48, 64, 3), np.uint8) if self.left >= 0 else None)
        def get(self, what): return 0.                                              # says no frame rate
        def set(self, what, value): pass
        def release(self): self.released = True
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    live.stream_command.__wrapped__(out=str(tmp_path/"a.jsonl"), detector="mine")
    lines = [json.loads(s) for s in (tmp_path/"a.jsonl").read_text().splitlines()]
    assert len(lines) == 5 and np.all(np.diff([n["seconds"] for n in lines]) > 0) and Webcam.one.released

@pytest.mark.parametrize("camera, options, sentence", [("99", {}, "camera 99 gives no picture; the number of a camera that is connected"),
    ("none.mp4", {}, "none.mp4 is not there; the number of a camera or the path of a film is allowed"),
    ("99", dict(detector="no"), "detector 'no' is unknown"), ("FILM", dict(latency="some"), "latency is 'some'")])
def test_one_sentence_of_the_command(camera, options, sentence, film, mine):
    with pytest.raises(SystemExit) as e:
        live.stream_command.__wrapped__(camera.replace("FILM", str(film)), **dict(detector="mine") | options)
    assert sentence in str(e.value) and "\n" not in str(e.value)

@pytest.mark.parametrize("package", ["cv2", "mediapipe"])
def test_a_missing_package_is_one_sentence(package):
    code = f"import sys; sys.modules['{package}'] = None; from diffhpe import detect, live; from diffhpe import live\n"
    code += "live.Webcam(0)" if package == "cv2" else "live.stream_command.__wrapped__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert f"needs {package}, which is not installed; pip install 'diffhpe[detect]'" in last
