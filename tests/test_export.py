"Lifted motion as files, read back by others: a reader of BVH of ten lines, csv, json, an HTML parser, FFmpeg where it is installed."
import base64, csv, hashlib, io, json, re, shutil, struct, subprocess, zipfile
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from PIL import Image

from diffhpe.bvh_export import BVH_JOINTS, BVH_TABLE
from diffhpe.camera import h36m_cameras
from diffhpe.coherence import bone_lengths, walk_tree
from diffhpe.joint_tables import import_recording
from diffhpe.lifted import LiftedMotion
from diffhpe.lifted_files import read_lifted
from diffhpe.skeleton import H36M_17
from diffhpe.synthetic import MOTIONS, make_body, make_style, synthetic_clip
from diffhpe.viewer import viewer_html
from diffhpe.write import write

CAMERA = h36m_cameras("S9")[0]

def motion(subject="S9", action="Walking", frames=50, noise=0., **fields):
    "An embedded motion as if lifted: exact, or with noise that changes the bones' lengths."
    rng = np.random.default_rng(list(f"{subject}{action}".encode()))
    seen = CAMERA.world_to_camera(synthetic_clip(make_body(subject), make_style(subject), MOTIONS[action], rng,
                                                 frames).astype(float))
    hypotheses = seen - seen[:, :1] + rng.normal(0, noise, (5, frames, 17, 3))*(np.arange(17) > 0)[:, None]
    keypoints = np.where(rng.random((frames, 17, 1)) < .1, np.nan, CAMERA.project(seen))
    return LiftedMotion(**{**dict(poses=hypotheses.mean(0), hypotheses=hypotheses, spread=hypotheses.std(0).mean(-1),
        trajectory=seen[:, 0], keypoints=keypoints, confidence=np.where(np.isnan(keypoints[..., 0]), 0, .8),
        image_size=CAMERA.resolution, person=subject), **fields})

def read_plainly(path):
    "(F, 17, 3) metres, camera frame, of a file in centimetres, and its frames per second: nothing of the package is used."
    head, _, motion = path.read_text().partition("MOTION")
    lines = head.replace("End Site", "End end").splitlines()
    names, parents, offsets, open_joints = [], [], [], []
    for word, *rest in filter(None, map(str.split, lines)):
        if word in ("ROOT", "JOINT", "End"):
            parents.append(open_joints[-1] if open_joints else -1)
            open_joints.append(len(names)); names.append(rest[0])
        elif word == "OFFSET": offsets.append([float(x) for x in rest])
        elif word == "}": open_joints.pop()
    seconds, *rows = motion.split("Frame Time:")[1].strip().splitlines()
    rows = np.array([row.split() for row in rows], float)
    turn, place, column = {-1: Rotation.identity(len(rows))}, {-1: rows[:, :3] - offsets[0]}, 3
    for k, (name, parent) in enumerate(zip(names, parents)):
        place[k] = place[parent] + turn[parent].apply(offsets[k])
        if name == "end": continue
        turn[k] = turn[parent]*Rotation.from_euler("ZXY", rows[:, column:column + 3], degrees=True)
        column += 3
    read = np.stack([place[names.index(name)] for name in BVH_JOINTS], 1)
    return read*.01*[1, -1, -1], 1/float(seconds)

def distance(a, b): return np.linalg.norm(a - b, axis=-1)

# --- BVH

@pytest.mark.parametrize("action", MOTIONS)
def test_bvh_holds_every_embedded_motion(tmp_path, action):
    m = motion("S11", action, person="")
    assert write(m, tmp_path/"a.bvh") == {tmp_path/"a.bvh": ""}
    read, fps = read_plainly(tmp_path/"a.bvh")
    assert len(read) == 50 and distance(read, m.placed).max() < 1e-3 and abs(fps - 50) < 1e-3

def test_bvh_says_how_far_changing_bones_move(tmp_path):
    m = motion(noise=.03)
    says, = write(m, tmp_path/"a.bvh").values()
    mean, most = (float(x)/1000 for x in re.findall(r"([\d.]+) mm", says))
    read, _ = read_plainly(tmp_path/"a.bvh")
    moved = distance(read, m.placed)
    assert (mean == pytest.approx(moved.mean(), abs=2e-4) and most == pytest.approx(moved.max(), abs=2e-4)
            and mean > .005)
    assert distance(read, walk_tree(m.placed, bone_lengths(m.poses, symmetric=False))).max() < 1e-3
    for parent, j in H36M_17.segments: assert np.ptp(distance(read[:, j], read[:, parent])) < 1e-4

@pytest.mark.parametrize("fps", [24, 25, 30, 59.94, 120])
def test_bvh_keeps_the_frame_rate(tmp_path, fps):
    write(replace(motion(frames=5), fps=fps), tmp_path/"a.bvh")
    assert abs(read_plainly(tmp_path/"a.bvh")[1] - fps) < 1e-3

def test_bvh_comes_back_through_our_importer(tmp_path):
    m = motion()
    write(m, tmp_path/"a.bvh")
    world = np.stack([m.placed[..., 0], m.placed[..., 2], -m.placed[..., 1]], -1)
    found = import_recording(tmp_path/"a.bvh", table=BVH_TABLE)
    assert distance(found.world, world).max() < 1e-3 and (found.up, found.unit, found.skipped) == ("y", "cm", 0)
    by_name = import_recording(tmp_path/"a.bvh")
    assert by_name.table == "mixamo" and distance(by_name.world, world)[:, [*range(1, 9), *range(11, 17)]].max() < 1e-3

@pytest.mark.parametrize("unit, metres", [("m", 1), ("cm", .01), ("mm", .001), ("inch", .0254)])
def test_bvh_in_other_units(tmp_path, unit, metres):
    m = motion(frames=5)
    write(m, tmp_path/"a.bvh", unit=unit)
    assert distance(read_plainly(tmp_path/"a.bvh")[0]/.01*metres, m.placed).max() < 1e-3

def test_a_single_frame_and_a_folded_body(tmp_path):
    still = np.zeros((3, 17, 3))
    write(LiftedMotion(still), tmp_path/"zero.bvh")               # bones of length 0 have no direction
    folded = still.copy()
    # every joint bent by half a turn, or not at all
    for p, j in H36M_17.segments: folded[:, j] = folded[:, p] + [0, .3*(-1)**j, 0]
    write(LiftedMotion(folded[:1]), tmp_path/"folded.bvh")
    assert np.isfinite(read_plainly(tmp_path/"zero.bvh")[0]).all()
    assert distance(read_plainly(tmp_path/"folded.bvh")[0], folded[:1]).max() < 1e-3

# --- tables and arrays

def two():
    return [motion(noise=.02),
            motion("S11", "Greeting", 30, .02, keypoints=None, confidence=None, trajectory=None, first_frame=25)]

def test_npz_holds_everything_and_no_pickle(tmp_path):
    people = two()
    write(people, tmp_path/"a.npz")
    for m, back in zip(people, read_lifted(tmp_path/"a.npz"), strict=True):
        for name in LiftedMotion.__dataclass_fields__:
            a, b = getattr(m, name), getattr(back, name)
            assert np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray)) if a is not None else b is None, name
    with zipfile.ZipFile(tmp_path/"a.npz") as archive:
        for name in archive.namelist(): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)

def test_csv_and_json_say_the_same(tmp_path):
    people = two()
    write(people, tmp_path/"a.csv"); write(people, tmp_path/"a.json")
    rows = list(csv.DictReader((tmp_path/"a.csv").open(newline="")))
    data = json.loads((tmp_path/"a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert len(rows) == 17*80 and [p["person"] for p in data["people"]] == ["S9", "S11"]
    for row in rows[::7]:
        p = data["people"][["S9", "S11"].index(row["person"])]
        f, j = int(row["frame"]) - p["first_frame"], data["joints"].index(row["joint"])
        pose = p["poses"][f][j]
        assert ([float(row[c]) for c in "xyz"] == pytest.approx(pose, abs=2e-5)
                and float(row["time"]) == pytest.approx((p["first_frame"] + f)/50))
        assert float(row["spread"]) == pytest.approx(p["spread"][f][j], abs=2e-5)
        if p["trajectory"]:
            assert [float(row[c]) for c in "XYZ"] == pytest.approx(np.add(pose, p["trajectory"][f]), abs=3e-5)
        else: assert row["X"] == row["Y"] == row["Z"] == ""
        seen = p["keypoints"][f][j] if p["keypoints"] else [None, None]
        assert ([row["u"], row["v"]] == ["", ""] if seen[0] is None
                else [float(row["u"]), float(row["v"])] == pytest.approx(seen, abs=.02))

def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    write(motion(), tmp_path/"a.npz")
    before = (tmp_path/"a.npz").read_bytes()
    def broken(*_, **__): raise OSError("No space left on device")
    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError): write(motion("S11"), tmp_path/"a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and (tmp_path/"a.npz").read_bytes() == before

# --- films

def test_gif_moves(tmp_path):
    write(motion(frames=30, noise=.02), tmp_path/"a.gif", fps=10, height=1.2)
    with Image.open(tmp_path/"a.gif") as gif:
        assert gif.n_frames == 6
        first = np.array(gif.convert("RGB")); gif.seek(3)
        assert (first != np.array(gif.convert("RGB"))).any()

def test_mp4_moves(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="the extra `video` is not installed")
    write(motion(frames=30), tmp_path/"a.mp4", fps=25, height=1.3)
    frames, seconds = ffmpeg.count_frames_and_secs(tmp_path/"a.mp4")
    assert frames == 15 and abs(seconds - .6) < .05
    head, *pictures = ffmpeg.read_frames(tmp_path/"a.mp4")
    assert head["codec"] == "h264" and "yuv420p" in head["pix_fmt"] and pictures[0] != pictures[-1]

# --- the page

class Page(HTMLParser):
    "The elements and the scripts of a page, as a browser's parser sees them."
    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text); self.close()
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script": self.inside = True; self.scripts.append("")
    def handle_endtag(self, tag): self.inside = self.inside and tag != "script"
    def handle_data(self, data):
        if self.inside: self.scripts[-1] += data

def decode(packed, *shape):
    "Numbers of the page, with nothing of the package."
    raw = base64.b64decode(packed["data"])
    q = np.array(struct.unpack(f"<{len(raw)//2}h", raw), float)
    return np.where(q == -32768, np.nan, packed["middle"] + q*packed["step"]).reshape(shape)

def test_the_page_holds_the_motion_to_a_millimetre(tmp_path):
    people = two()
    assert write(people, tmp_path/"a.html") == {tmp_path/"a.html": ""}
    data = json.loads(Page((tmp_path/"a.html").read_text(encoding="utf-8")).scripts[0])
    assert data["parents"] == list(H36M_17.parents) and data["fps"] == 50
    for m, p in zip(people, data["people"], strict=True):
        F = len(m)
        assert (distance(decode(p["poses"], F, 17, 3), m.poses).max() < 1e-3
                and distance(decode(p["hypotheses"], 5, F, 17, 3), m.hypotheses).max() < 1e-3)
        assert np.abs(decode(p["spread"], F, 17) - m.spread).max() < 1e-3 and p["first"] == m.first_frame
        if m.trajectory is not None: assert distance(decode(p["trajectory"], F, 3), m.trajectory).max() < 1e-3
        if m.keypoints is not None:
            seen = decode(p["keypoints"], F, 17, 2)
            assert (np.isnan(seen) == np.isnan(m.keypoints)).all() and np.nanmax(np.abs(seen - m.keypoints)) < .1

def test_ten_seconds_are_small():
    assert len(viewer_html(motion(frames=500, noise=.03))) < 2_000_000

def test_the_page_loads_nothing():
    page = viewer_html(motion(noise=.02))
    found = Page(page)
    assert not {t for t, _ in found.tags} & {"link", "img", "iframe", "object", "embed", "base", "form", "video",
                                             "audio", "source"}
    assert not [a for _, attrs in found.tags for a in attrs if a in ("src", "href", "action", "srcset", "data")
                or a.startswith("on")]
    shell = page.replace(found.scripts[0], "")
    outside = (r"https?:|//|url\(|@import|\bimport\b|fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|innerHTML|"
               r"document\.write|eval\(|new Function")
    assert not re.search(outside, shell)
    policy, = [a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    allowed, = re.findall(r"script-src '(sha256-[^']+)'", policy)
    assert ("default-src 'none'" in policy
            and allowed == "sha256-" + base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode())

@pytest.mark.parametrize("evil", ["</script><script>alert(1)</script>", "<!--<script>", "</script x=\"", "</SCRIPT/",
                                  "]]>", "{{data}}{{hash}}", "\"'><img src=x onerror=alert(1)>", "\u2028\u2029&lt;\x00",
                                  "</title><b>"])
def test_names_stay_names(evil):
    texts = [viewer_html([motion(person=name), motion("S11")], name) for name in ("A", evil)]
    assert [texts[1].count(c) for c in "<>"] == [texts[0].count(c) for c in "<>"]
    plain, page = map(Page, texts)
    assert [t for t, _ in page.tags] == [t for t, _ in plain.tags]           # no element more
    assert len(page.scripts) == 2 and page.scripts[1] == plain.scripts[1]
    assert json.loads(page.scripts[0])["people"][0]["name"] == evil

def test_everything_can_be_reached_without_a_mouse():
    tags = Page(viewer_html(motion(noise=.02))).tags
    text = viewer_html(motion(noise=.02))
    assert ("html", {"lang": "en"}) in tags
    for tag, attrs in tags:
        if tag == "canvas": assert attrs.get("role") and attrs.get("aria-label")
        if tag == "button":
            assert attrs.get("aria-label") or re.search(rf'id="{attrs["id"]}"[^>]*>[A-Z]\w+</button>', text)
        if tag == "input" and attrs["type"] == "range": assert attrs.get("aria-label")
        if tag in ("select", "input") and attrs.get("type") != "range":
            assert re.search(rf'<label[^>]*>[^<]*<{tag} id="{attrs["id"]}"', text)

@pytest.mark.skipif(not shutil.which("node"), reason="no node to read the script")
def test_the_script_is_javascript(tmp_path):
    (tmp_path/"page.js").write_text(Page(viewer_html(motion())).scripts[1], encoding="utf-8")
    assert not subprocess.run(["node", "--check", tmp_path/"page.js"], capture_output=True, text=True).stderr

def test_trc_holds_the_joints_where_they_are(tmp_path):
    "Read by the form's description: six lines of head, then frame, time and places with y up."
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(7, 17, 3)); poses[:, 0] = 0
    motion = LiftedMotion(poses, fps=29.97, first_frame=12, trajectory=rng.normal(size=(7, 3)) + [0, 0, 5])
    [(path, says)] = write(motion, tmp_path/"walk.trc").items()
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")]
    assert lines[0] == ["PathFileType", "4", "(X/Y/Z)", "walk.trc"] and lines[-1] == [""] and "places" in says
    head = dict(zip(lines[1], lines[2], strict=True))
    assert (head["NumFrames"], head["NumMarkers"], head["Units"], head["DataRate"]) == ("7", "17", "m", "29.97")
    names = lines[3][2::3]
    assert lines[3][:2] == ["Frame#", "Time"] and len(set(names)) == 17 and not any(" " in n or "/" in n for n in names)
    rows = np.array(lines[6:-1], float)
    assert rows.shape == (7, 2 + 51) and rows[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(rows[:, 1], (12 + np.arange(7))/29.97, atol=1e-6)
    places = motion.poses + motion.trajectory[:, None]
    np.testing.assert_allclose(rows[:, 2:].reshape(7, 17, 3), np.stack([places[..., 0], -places[..., 1], -places[..., 2]], -1), atol=1e-5)
