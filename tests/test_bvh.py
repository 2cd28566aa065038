"BVH files that the tests write themselves, in several namings, units, axes and orders of angles, and the command that turns a folder of them into a dataset."
import itertools, json, os, re, subprocess, sys, tracemalloc
from pathlib import Path

import numpy as np
import pytest

import diffhpe
from diffhpe.bvh import UNITS, bvh_kinematics, read_bvh_motion
from diffhpe.datasets import load_dataset
from diffhpe.motion_files import read_motion
from diffhpe.import_bvh import bvh_to_npz, describe_import, import_bvh, read_bvh_folder
from diffhpe.joint_tables import JOINT_TABLES, body_axes, import_recording, knees_ahead, read_bvh, recipe_parts
from diffhpe.skeleton import H36M_17
from diffhpe.virtual import capture_pieces

EXCERPT = Path(__file__).parent / "data/131_01.bvh"  # of CMU's motion capture, see the comment at its use below
SHARED = Path(diffhpe.__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not (SHARED / "bvh").is_dir(), reason="the raw files of ../shared/data/bvh are not here")

# --- a body in a T-pose, facing +z: joint → (parent, offset in metres: x left, y up, z forward)

BODY = dict(
    Hips=(None, (0, .95, 0)), Spine=("Hips", (0, .12, 0)), Spine1=("Spine", (0, .14, 0)), Neck1=("Spine1", (0, .24, 0)), Head=("Neck1", (0, .1, .02)),
    **{joint.format(side): (parent.format(side), (sign*x, y, z)) for side, sign in (("Left", 1), ("Right", -1)) for joint, parent, (x, y, z) in (
        ("{}UpLeg", "Hips", (.1, -.04, 0)), ("{}Leg", "{}UpLeg", (0, -.43, .01)), ("{}Foot", "{}Leg", (0, -.42, -.01)),
        ("{}Arm", "Spine1", (.18, .2, 0)), ("{}ForeArm", "{}Arm", (.28, 0, 0)), ("{}Hand", "{}ForeArm", (.25, 0, 0)))})
NAMINGS = dict( # for the joints of BODY, in its order
    motionbuilder=dict(zip(BODY, BODY)),
    mixamo={j: "mixamorig:" + j.replace("Neck1", "Neck") for j in BODY},
    **{naming: dict(zip(BODY, names.split())) for naming, names in dict(
        cmu="Hips Chest Chest2 Neck Head LeftHip LeftKnee LeftAnkle LeftShoulder LeftElbow LeftWrist RightHip RightKnee RightAnkle RightShoulder RightElbow RightWrist",
        biovision="Hips Waist Chest Neck Head LeftHip LeftKnee LeftAnkle LeftShoulder LeftElbow LeftWrist RightHip RightKnee RightAnkle RightShoulder RightElbow RightWrist",
        bandai="Hips Spine Chest Neck Head UpperLeg_L LowerLeg_L Foot_L UpperArm_L LowerArm_L Hand_L UpperLeg_R LowerLeg_R Foot_R UpperArm_R LowerArm_R Hand_R").items()})

def smooth(n_frames, n, seed, amplitude=25.):
    "(F, n) smooth curves, degrees."
    rng, t = np.random.default_rng(seed), np.linspace(0, 1, n_frames)[:, None]
    return sum(rng.uniform(-1, 1, n)*np.sin(2*np.pi*k*t + rng.uniform(0, 6, n)) for k in (1, 2))*amplitude/2

def turn(axis, degrees):
    "(F, 3, 3) rotations about an axis."
    c, s, R = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.tile(np.eye(3), (len(degrees), 1, 1))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    R[:, a, a], R[:, b, b], R[:, a, b], R[:, b, a] = c, c, -s, s
    return R

def make_bvh(path, naming="motionbuilder", metre=100., n_frames=31, fps=30, orders=("ZXY",), positions=(), up="y", seed=0, newline="\n", bend=0, stride=1):
    "Writes a file with known motion; returns joint → (F, 3), in metres, y up, by formulas of its own."
    order, names = dict(zip(BODY, itertools.cycle(orders))), NAMINGS[naming]
    lines, columns, where, turned = ["HIERARCHY"], [], {}, {}
    if up == "z":  # an extra root, turned by 90° about x, lays the body's y axis on z
        lines += ["ROOT world", "{", "OFFSET 0 0 0", "CHANNELS 3 Xrotation Yrotation Zrotation"]
        columns += [np.full(n_frames, 90.), *np.zeros((2, n_frames))]
    def write(joint, depth):
        parent, offset = BODY[joint]
        local = np.tile(offset, (n_frames, 1)) + (np.linspace(0, 1, n_frames)[:, None]*[.3, 0, stride] if parent is None else 0)
        angles, R = smooth(n_frames, 3, seed + list(BODY).index(joint)), np.eye(3)
        if joint in ("LeftLeg", "RightLeg"): angles[:, 0] += bend   # of the knee
        for axis in order[joint]: R = R @ turn("XYZ".index(axis), angles[:, "XYZ".index(axis)])
        where[joint] = local if parent is None else where[parent] + (turned[parent] @ local[..., None])[..., 0]
        turned[joint] = R if parent is None else turned[parent] @ R
        moved, pad = parent is None or joint in positions, "\t"*depth
        written = (7., 7., 7.) if moved else metre*np.array(offset)  # an OFFSET that positions replace
        lines.extend([f"{pad}{'JOINT' if parent or up == 'z' else 'ROOT'} {names[joint]}", pad + "{", f"{pad}\tOFFSET " + " ".join(f"{x:.8f}" for x in written),
                      f"{pad}\tCHANNELS {6 if moved else 3} " + "Xposition Yposition Zposition "*moved + " ".join(f"{a}rotation" for a in order[joint])])
        if moved: columns.extend(metre*local.T)
        columns.extend(angles[:, "XYZ".index(a)] for a in order[joint])
        children = [j for j, (p, _) in BODY.items() if p == joint]
        for child in children: write(child, depth + 1)
        if not children: lines.extend([f"{pad}\tEnd Site", f"{pad}\t" + "{", f"{pad}\t\tOFFSET 0 0 0", f"{pad}\t" + "}"])
        lines.append(pad + "}")
    write("Hips", 0)
    if up == "z": lines.append("}")
    rows = [" ".join(f"{x:.10f}" for x in row) for row in np.stack(columns, axis=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(newline.join([*lines, "MOTION", f"Frames:\t{n_frames}", f"Frame Time:\t{1/fps:.7f}", *rows, ""]), newline="")
    return where

def expected(where):
    "(F, 17, 3) metres, z up, of a body in MotionBuilder's naming; nose and head top both at the joint Head."
    poses = np.stack([np.mean([where[n] for n in recipe_parts(JOINT_TABLES["motionbuilder"][j])[0]], axis=0) for j in H36M_17.names], axis=1)
    return np.stack([poses[..., 0], -poses[..., 2], poses[..., 1]], axis=-1)

BUT_HEAD = [j for j in range(17) if j not in (9, 10)]

# --- the trunk, whatever its joints are called

SPINES = { # joint → its parent and offset in metres, y up, between hips and head; the shoulders' line is 0.5 above the hips
    "Xsens, four chests": dict(Chest=("Hips", (0, .1, 0)), Chest2=("Chest", (0, .1, 0)), Chest3=("Chest2", (0, .1, 0)), Chest4=("Chest3", (0, .1, 0)), Neck=("Chest4", (0, .12, 0))),
    "LaFAN's proportions": dict(Spine=("Hips", (0, .06, 0)), Spine1=("Spine", (0, .13, 0)), Spine2=("Spine1", (0, .2, 0)), Neck=("Spine2", (0, .13, 0))),
    "Neck and Neck1": dict(Spine=("Hips", (0, .2, 0)), Spine1=("Spine", (0, .13, 0)), Neck=("Spine1", (0, .2, 0)), Neck1=("Neck", (0, .07, 0))),
    "Neck below, Neck1 above": dict(Spine=("Hips", (0, .2, 0)), Spine1=("Spine", (0, .1, 0)), Neck=("Spine1", (0, .06, 0)), Neck1=("Neck", (0, .17, 0))),
    "a neck that begins at the chin": dict(Spine=("Hips", (0, .2, 0)), Spine1=("Spine", (0, .1, 0)), Neck=("Spine1", (0, .33, 0))),
    "no neck": dict(Spine=("Hips", (0, .2, 0)), Spine1=("Spine", (0, .13, 0))),
    "one spine joint": dict(Spine=("Hips", (0, .24, 0)), Neck=("Spine", (0, .28, 0))),
    "one low spine joint, no neck": dict(Spine=("Hips", (0, .1, 0))),
    "no spine, no neck": {}}

@pytest.mark.parametrize("names", SPINES)
@pytest.mark.parametrize("limbs", ["LeftUpLeg LeftLeg LeftFoot LeftArm LeftForeArm LeftHand", "LeftHip LeftKnee LeftAnkle LeftShoulder LeftElbow LeftWrist"])
def test_spine_is_half_way_and_thorax_at_the_shoulders(names, limbs, tmp_path, monkeypatch):
    spine = dict(SPINES[names])
    if limbs.startswith("LeftHip"): spine = {re.sub("^Spine", "Chest", n): (re.sub("^Spine", "Chest", p), o) for n, (p, o) in spine.items()}
    chest = next((n for n in reversed(spine) if "Neck" not in n), "Hips")
    top, up = next(reversed(spine), "Hips"), {"Hips": 0.}
    for n, (p, (_, y, _)) in spine.items(): up[n] = up[p] + y
    body = dict(Hips=(None, (0, .95, 0)), **spine, Head=(top, (0, .68 - up[top], .02)))
    parts = [name.split("Left")[1] for name in limbs.split()]
    for side, sign in (("Left", 1), ("Right", -1)):
        offsets = [(.1, 0, 0), (0, -.43, .01), (0, -.42, -.01), (.18, .5 - up[chest], 0), (.28, 0, 0), (.25, 0, 0)]
        parents = ["Hips", side + parts[0], side + parts[1], chest, side + parts[3], side + parts[4]]
        body |= {side + part: (parent, (sign*x, y, z)) for part, parent, (x, y, z) in zip(parts, parents, offsets)}
    monkeypatch.setitem(globals(), "BODY", body); monkeypatch.setitem(NAMINGS, "own", dict(zip(body, body)))
    monkeypatch.setattr(sys.modules[__name__], "smooth", lambda n_frames, n, seed: smooth_slow(n_frames, n, seed))
    make_bvh(tmp_path / "a.bvh", "own")
    world = read_bvh(tmp_path / "a.bvh", knees=False).astype(float)
    hip, thorax, line = world[:, 0], world[:, 8], world[:, [11, 14]].mean(1)
    length = np.linalg.norm(line - hip, axis=-1)
    assert np.median(np.linalg.norm(thorax - line, axis=-1)/length) < .13
    assert np.median(np.linalg.norm(world[:, 7] - (hip + thorax)/2, axis=-1)/length) < .13
    table = next(t for t in JOINT_TABLES.values() if recipe_parts(t["LShoulder"])[0] == (f"Left{parts[3]}",)) | dict(Spine="Head", Thorax="Head")
    assert np.allclose(read_bvh(tmp_path / "a.bvh", table=table, knees=False)[:, 8], read_bvh(tmp_path / "a.bvh", table=table, knees=False)[:, 7])   # one's own is taken as it is

def smooth_slow(n_frames, n, seed): return np.random.default_rng(seed).uniform(-5, 5, n)*np.sin(np.linspace(0, 3, n_frames))[:, None]

# --- reading

@pytest.mark.parametrize("orders", [("".join(o),) for o in itertools.permutations("XYZ")] + [("ZYX", "ZXY", "YXZ")], ids="-".join)
def test_every_order_of_angles(tmp_path, orders):
    where = make_bvh(tmp_path / "a.bvh", orders=orders)
    motion = read_bvh_motion(tmp_path / "a.bvh")
    assert np.abs(bvh_kinematics(motion)[0]/100 - np.stack([where[n] for n in motion.names], axis=1)).max() < 1e-6
    assert np.abs(read_bvh(tmp_path / "a.bvh", fps=30)[:, BUT_HEAD] - expected(where)[:, BUT_HEAD]).max() < 1e-5

@pytest.mark.parametrize("naming", list(NAMINGS))
def test_every_naming_gives_the_same_body(tmp_path, naming):
    where = make_bvh(tmp_path / "a.bvh", naming)
    found = import_recording(tmp_path / "a.bvh", fps=30)
    same = [j for j in BUT_HEAD if not (naming in ("mixamo", "biovision") and j == 7)]  # whose spine is a joint, not the middle of a bone
    assert found.table == naming
    assert np.abs(found.world[:, same] - expected(where)[:, same]).max() < 1e-5

def test_nose_and_head_are_fixed_in_the_head(tmp_path):
    where = make_bvh(tmp_path / "a.bvh")
    world, head = read_bvh(tmp_path / "a.bvh", fps=30).astype(float), np.stack([where["Head"][:, 0], -where["Head"][:, 2], where["Head"][:, 1]], axis=-1)
    for joint, length in ((9, np.hypot(.045, .06)), (10, .175)): assert np.allclose(np.linalg.norm(world[:, joint] - head, axis=-1), length, atol=1e-5)
    left, up, forward = np.moveaxis(body_axes(world), -1, 0)
    assert ((world[:, 10] - head)*up).sum(-1).mean() > .15 and ((world[:, 9] - head)*forward).sum(-1).mean() > .045 and abs(((world[:, 9] - head)*left).sum(-1).mean()) < .015

@pytest.mark.parametrize("positions", [tuple(BODY), ("LeftHand", "Head")], ids=["all", "two"])
def test_positions_on_joints_replace_their_offsets(tmp_path, positions):
    where = make_bvh(tmp_path / "a.bvh", positions=positions)
    assert np.abs(read_bvh(tmp_path / "a.bvh", fps=30)[:, BUT_HEAD] - expected(where)[:, BUT_HEAD]).max() < 1e-5

@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_recognised(tmp_path, unit):
    where = make_bvh(tmp_path / "a.bvh", metre=1/UNITS[unit])
    found = import_recording(tmp_path / "a.bvh", fps=30)
    assert found.unit == unit
    assert np.abs(found.world[:, BUT_HEAD] - expected(where)[:, BUT_HEAD]).max() < 1e-5

def test_z_up_is_recognised_and_left_stays_left(tmp_path):
    where = make_bvh(tmp_path / "a.bvh", up="z")
    found = import_recording(tmp_path / "a.bvh", fps=30)
    assert found.up == "z" and np.abs(found.world[:, BUT_HEAD] - expected(where)[:, BUT_HEAD]).max() < 1e-5

@pytest.mark.parametrize("file_fps", [24, 30, 50, 60, 100, 120])
def test_resampling_keeps_bones_and_meets_the_curve(tmp_path, file_fps):
    where = make_bvh(tmp_path / "a.bvh", fps=file_fps, n_frames=2*file_fps + 1)
    world, truth = read_bvh(tmp_path / "a.bvh").astype(float), expected(where)
    assert len(world) == 101
    step = np.gcd(file_fps, 50)                       # both have a frame every 1/step s
    assert np.abs(world[::50//step][:, BUT_HEAD] - truth[::file_fps//step][:, BUT_HEAD]).max() < 1e-5
    for a, b in ((1, 2), (2, 3), (4, 5), (5, 6), (11, 12), (12, 13), (14, 15), (15, 16), (1, 4), (9, 10)):
        assert np.ptp(np.linalg.norm(world[:, a] - world[:, b], axis=-1)) < 2e-6
    make_bvh(tmp_path / "fine.bvh", fps=600, n_frames=1201)   # the same curves, ten times as fine
    assert np.abs(world - read_bvh(tmp_path / "fine.bvh")).max() < 2e-3

def test_a_body_that_turns_round_does_not_spin(tmp_path):
    make_bvh(tmp_path / "a.bvh", n_frames=61, orders=("YXZ",))
    lines = (tmp_path / "a.bvh").read_text().split("\n")
    i = lines.index("MOTION") + 3
    for f in range(61): lines[i + f] = " ".join([*lines[i + f].split()[:3], f"{12*f}", "0", "0", *lines[i + f].split()[6:]])   # twice round, about y
    (tmp_path / "b.bvh").write_text("\n".join(lines))
    world = read_bvh(tmp_path / "b.bvh").astype(float)
    hips = world[:, 4] - world[:, 1]
    heading = np.unwrap(np.arctan2(hips[:, 1], hips[:, 0]))
    assert np.abs(np.diff(heading) - np.radians(360/50)).max() < 1e-3

def test_line_ends_and_byte_order_mark(tmp_path):
    make_bvh(tmp_path / "a.bvh"); make_bvh(tmp_path / "b.bvh", newline="\r\n")
    (tmp_path / "c.bvh").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.bvh").read_bytes())
    assert all(np.array_equal(read_bvh(tmp_path / "a.bvh"), read_bvh(tmp_path / f"{x}.bvh")) for x in "bc")

@pytest.mark.parametrize("change", [str.lower, lambda t: t.replace("\n\t", " \n").replace("{ \n", "{\n\n"), lambda t: re.sub(r"\s+\{", " {", t), lambda t: re.sub(r"End Site\s+(\{)\s+(OFFSET [^\n]+)\s+(\})", r"End \1 \2 \3", t)], ids=["small letters", "no tabs", "braces at the end of lines", "an End Site on one line"])
def test_spelling_and_layout_do_not_matter(tmp_path, change):
    make_bvh(tmp_path / "a.bvh", positions=("LeftHand",))
    text = (tmp_path / "a.bvh").read_text()
    (tmp_path / "b.bvh").write_text(change(text))
    assert change(text) != text and np.array_equal(read_bvh(tmp_path / "a.bvh"), read_bvh(tmp_path / "b.bvh"))

def test_a_rest_pose_before_the_motion_is_left_out(tmp_path):
    make_bvh(tmp_path / "a.bvh")
    lines = (tmp_path / "a.bvh").read_text().split("\n")
    i = lines.index("MOTION")
    rest = " ".join(["0"]*len(lines[i + 3].split()))
    (tmp_path / "b.bvh").write_text("\n".join([*lines[:i + 1], "Frames: 32", lines[i + 2], rest, *lines[i + 3:]]))
    assert np.array_equal(read_bvh(tmp_path / "a.bvh"), read_bvh(tmp_path / "b.bvh"))
    assert import_recording(tmp_path / "b.bvh").skipped == 1 and len(read_bvh(tmp_path / "b.bvh", fps=30, skip=0)) == 32

def before_the_motion(text, row):
    "The text of a file with one more frame before its motion."
    lines = text.split("\n"); i = lines.index("MOTION")
    return "\n".join([*lines[:i + 1], f"Frames: {int(lines[i + 1].split()[1]) + 1}", lines[i + 2], row, *lines[i + 3:]])

@pytest.mark.parametrize("fps", [24, 30, 60, 120])
def test_a_rest_pose_whose_angles_are_not_zero_is_left_out(tmp_path, fps):
    "As in CMU's conversion for MotionBuilder: a T-pose with hips and feet turned by some degrees, then a walk with hanging arms."
    make_bvh(tmp_path / "a.bvh", fps=fps, n_frames=3*fps)
    lines = (tmp_path / "a.bvh").read_text().split("\n"); i = lines.index("MOTION") + 3
    joints, hang = list(BODY), dict(LeftArm=-70, RightArm=70)
    for f in range(3*fps):                            # ZXY: the first angle of a joint is about z
        row = lines[i + f].split()
        for joint, angle in hang.items(): row[3 + 3*joints.index(joint)] = f"{float(row[3 + 3*joints.index(joint)])/2 + angle:.6f}"
        lines[i + f] = " ".join(row)
    text = "\n".join(lines)
    rest = ["0", "95", "0", *["0"]*3*len(BODY)]
    for joint, angle in dict(LeftUpLeg=20, RightUpLeg=-20, LeftFoot=17, RightFoot=-17).items(): rest[3 + 3*joints.index(joint)] = f"{angle}"
    (tmp_path / "b.bvh").write_text(text); (tmp_path / "c.bvh").write_text(before_the_motion(text, " ".join(rest)))
    assert [import_recording(tmp_path / f"{x}.bvh").skipped for x in "bc"] == [0, 1]
    assert np.array_equal(read_bvh(tmp_path / "b.bvh"), read_bvh(tmp_path / "c.bvh"))

@pytest.mark.parametrize("fps", [60, 120, 240])
def test_no_joint_is_faster_than_20_metres_a_second_into_the_second_frame(tmp_path, fps):
    "A first frame from which a joint would leap at 21 to 80 m/s is no motion, however small the leap is at this frame rate."
    make_bvh(tmp_path / "a.bvh", fps=fps, n_frames=fps)
    text = (tmp_path / "a.bvh").read_text()
    first = text.split("\n")[text.split("\n").index("MOTION") + 3].split()
    for angle in (15, 30, 60):
        row = first.copy(); row[3 + 3*list(BODY).index("LeftArm")] = f"{float(row[3 + 3*list(BODY).index('LeftArm')]) - angle}"
        (tmp_path / "b.bvh").write_text(before_the_motion(text, " ".join(row)))
        speed = .53*2*np.sin(np.radians(angle/2))*fps       # of the hand, whose arm is 0.53 m long
        assert speed < 18 or speed > 22 or fps < 100
        if speed > 22: assert import_recording(tmp_path / "b.bvh").skipped == 1, (angle, speed)
        if speed < 8: assert import_recording(tmp_path / "b.bvh").skipped == 0, (angle, speed)
        if import_recording(tmp_path / "b.bvh").skipped:
            assert np.array_equal(read_bvh(tmp_path / "b.bvh"), read_bvh(tmp_path / "a.bvh"))

@pytest.mark.parametrize("fps", [24, 30, 120])
def test_motion_that_begins_at_once_is_no_rest_pose(tmp_path, fps):
    for seed in range(4):
        make_bvh(tmp_path / "a.bvh", fps=fps, n_frames=fps//2, seed=seed, bend=60, stride=4)   # 8 m/s
        assert import_recording(tmp_path / "a.bvh", knees=False).skipped == 0

def test_a_frame_time_that_is_wrong_can_be_said(tmp_path):
    make_bvh(tmp_path / "a.bvh", fps=120, n_frames=121)
    (tmp_path / "b.bvh").write_text((tmp_path / "a.bvh").read_text().replace("Frame Time:\t0.0083333", "Frame Time: .0416667"))
    assert len(read_bvh(tmp_path / "b.bvh")) == 251 and np.array_equal(read_bvh(tmp_path / "b.bvh", source_fps=120), read_bvh(tmp_path / "a.bvh"))
    assert import_recording(tmp_path / "b.bvh", source_fps=120).file_fps == 120

def test_a_table_of_ones_own(tmp_path, monkeypatch):
    make_bvh(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text()
    for old in BODY: text = text.replace(f" {old}\n", f" my {old.lower()}\n")   # names of two words
    (tmp_path / "b.bvh").write_text(text)
    with pytest.raises(ValueError, match=r"b\.bvh: it lacks .* of the joint table .*, the nearest; it has my hips, my spine"): read_bvh(tmp_path / "b.bvh")
    mine = {j: tuple(f"my {n}" for n in names) if not np.any(offset) else (f"my {names[0]}", tuple(offset)) for j, r in JOINT_TABLES["motionbuilder"].items() for names, offset in [recipe_parts(r)]}
    assert np.array_equal(read_bvh(tmp_path / "b.bvh", table=mine), read_bvh(tmp_path / "a.bvh"))
    monkeypatch.setitem(JOINT_TABLES, "mine", mine)
    assert import_recording(tmp_path / "b.bvh").table == "mine"

# --- left and right exchanged: the nose, made from the hips' front, tells nothing, but the knees do

def exchange_sides(text):
    "The text of a file whose names' sides are exchanged."
    return re.sub(r"\b(Left|Right)(?=\w)|(?<=_)[LR]\b", lambda m: dict(Left="Right", Right="Left", L="R", R="L")[m[0]], text)

@pytest.mark.parametrize("naming", list(NAMINGS))
def test_swapped_names_are_refused(tmp_path, naming):
    make_bvh(tmp_path / "a.bvh", naming, bend=25)
    (tmp_path / "b.bvh").write_text(exchange_sides((tmp_path / "a.bvh").read_text()))
    good = read_bvh(tmp_path / "a.bvh")
    assert knees_ahead(good) > .04
    for read in (read_bvh, import_recording):
        with pytest.raises(ValueError, match=r"b\.bvh: the knees bend forwards, so that left and right of the joint table, or of the file's axes, look swapped"): read(tmp_path / "b.bvh")
    bad = import_recording(tmp_path / "b.bvh", knees=False).world
    assert np.abs(bad[:, BUT_HEAD] - good[:, H36M_17.mirror][:, BUT_HEAD]).max() < 1e-5 and abs(knees_ahead(bad) + knees_ahead(good)) < .005

@pytest.mark.parametrize("n_bad", [0, 1, 2, 3])
def test_most_of_a_folder_decides_about_its_sides(tmp_path, recwarn, n_bad):
    for i, who in enumerate("abc"):
        make_bvh(tmp_path / f"{who}/walk.bvh", bend=25, seed=i)
        if i < n_bad: (tmp_path / f"{who}/walk.bvh").write_text(exchange_sides((tmp_path / f"{who}/walk.bvh").read_text()))
    if 2*n_bad > 3:
        with pytest.raises(ValueError, match=rf"walk\.bvh and {n_bad - 1} more of 3 recordings: the knees bend forwards"): read_bvh_folder(tmp_path)
    else: assert len(read_bvh_folder(tmp_path).recordings) == 3
    assert [str(w.message).split(":")[0].endswith("a/walk.bvh and 0 more of 3 recordings") for w in recwarn] == [True]*(n_bad == 1)

@pytest.mark.filterwarnings("error")
def test_straight_knees_prove_nothing(tmp_path):
    for i, who in enumerate("abc"):
        make_bvh(tmp_path / f"{who}/walk.bvh", seed=i)
        (tmp_path / f"{who}/walk.bvh").write_text(exchange_sides((tmp_path / f"{who}/walk.bvh").read_text()))
    assert len(read_bvh_folder(tmp_path).recordings) == 3

# --- files that are not what they should be

def spoil(text, change):
    lines = text.split("\n"); i = lines.index("MOTION")
    return {"no motion": "\n".join(lines[:i]), "no hierarchy": "\n".join(lines[i:]), "cut in a line": text[:-200], "cut between lines": "\n".join(lines[:-5]),
            "a value too many": text.rstrip() + " 1", "nan": text.rstrip().rsplit(" ", 1)[0] + " nan", "infinite": text.rstrip().rsplit(" ", 1)[0] + " 1e400",
            "a word": text.rstrip().rsplit(" ", 1)[0] + " x", "no frames": "\n".join([*lines[:i + 1], "Frames: 0", *lines[i + 2:i + 3]]), "frame time 0": text.replace("Frame Time:\t0.0333333", "Frame Time: 0"),
            "negative frame time": text.replace("Time:\t", "Time: -"), "too many frames": text.replace("Frames:\t31", "Frames: 900000000"), "digits without end": text.replace("Frames:\t31", "Frames: " + "9"*9999),
            "a joint without channels": text.replace("CHANNELS 3", "", 1), "an open brace": text.replace("}", "", 1), "two roots": text.replace("JOINT", "ROOT", 1),
            "a channel of four": text.replace("CHANNELS 3", "CHANNELS 4", 1), "an unknown channel": text.replace("Zrotation", "Wrotation", 1), "an offset of two": text.replace("OFFSET 0 0 0", "OFFSET 0 0", 1),
            "an endless offset": text.replace("OFFSET 7.00000000", "OFFSET inf", 1).replace("CHANNELS 6 Xposition Yposition Zposition", "CHANNELS 5 Yposition Zposition", 1),
            "deep": "HIERARCHY\nROOT a\n{\n" + "JOINT b\n{\n"*100_000, "many hands": "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\n" + "JOINT b\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\n"*600 + "}\nMOTION\n",
            "a giant": text.replace("OFFSET 0.00000000", "OFFSET 1e300"), "empty": "", "spaces": " \n\t\n", "lacks a joint": text.replace("LeftHand", "LeftPaw")}[change]

CHANGES = ["no motion", "no hierarchy", "cut in a line", "cut between lines", "a value too many", "nan", "infinite", "a word", "no frames", "frame time 0", "negative frame time", "too many frames", "digits without end",
           "a joint without channels", "an open brace", "two roots", "a channel of four", "an unknown channel", "an offset of two", "an endless offset", "deep", "many hands", "a giant", "empty", "spaces", "lacks a joint"]

@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("error")
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, change):
    make_bvh(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text()
    spoilt = spoil(text, change)
    assert spoilt != text
    (tmp_path / "bad.bvh").write_text(spoilt)
    with pytest.raises(ValueError, match=r"bad\.bvh: ") as e: read_bvh(tmp_path / "bad.bvh")
    assert "\n" not in str(e.value) and len(str(e.value)) < 1500 and "plain.bvh" not in str(e.value)

@pytest.mark.parametrize("more", [-1, 1])
def test_one_frame_more_or_fewer_than_declared_is_read_with_a_warning(tmp_path, more):
    make_bvh(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text()
    (tmp_path / "b.bvh").write_text(text.replace("Frames:\t31", f"Frames: {31 - more}"))
    with pytest.warns(UserWarning, match=rf"b\.bvh: it declares {31 - more} frames and holds 31; those that it holds are read"): world = read_bvh(tmp_path / "b.bvh")
    assert np.array_equal(world, read_bvh(tmp_path / "a.bvh"))
    (tmp_path / "c.bvh").write_text(text.replace("Frames:\t31", f"Frames: {31 - 2*more}"))
    with pytest.raises(ValueError, match=rf"c\.bvh: it declares {31 - 2*more} frames and holds 31; at least one, and as many as declared"): read_bvh(tmp_path / "c.bvh")

@pytest.mark.parametrize("cut", [1, 3, 300])
def test_a_file_that_breaks_off_is_refused(tmp_path, cut):
    "At the end of its last but one line, within that line's last number, and within the line before."
    make_bvh(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text()
    (tmp_path / "b.bvh").write_text("\n".join(text.split("\n")[:-2])[:-cut + 1 or None])
    with pytest.raises(ValueError, match=r"b\.bvh: (it declares 31 frames and holds 30|frame 29 has \d+ values)"): read_bvh(tmp_path / "b.bvh")

@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(1000), os.urandom(5000), b"HIERARCHY\n" + bytes(5000), b"\x80\x04\x95pickle"], ids=["png", "noise", "zeros", "pickle"])
def test_binary_files_are_refused(tmp_path, content):
    (tmp_path / "bad.bvh").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.bvh: "): read_bvh(tmp_path / "bad.bvh")

def test_no_cut_of_a_file_crashes(tmp_path):
    make_bvh(tmp_path / "a.bvh", n_frames=2)
    raw = (tmp_path / "a.bvh").read_bytes()
    for end in range(0, len(raw) - 12, 53):           # the last number may lose a few digits
        (tmp_path / "cut.bvh").write_bytes(raw[:end])
        with pytest.raises(ValueError, match=r"cut\.bvh: "): read_bvh(tmp_path / "cut.bvh")

# --- a folder, and the command

@pytest.fixture(scope="module")
def command(tmp_path_factory):
    "The command as an installation writes it."
    script = tmp_path_factory.mktemp("bin") / "diffhpe_import_bvh"
    script.write_text("import sys\nfrom diffhpe.import_bvh import import_bvh\nsys.exit(import_bvh())\n")
    return lambda *args: subprocess.run([sys.executable, str(script), *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL)

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bvh")
    for i, who in enumerate(("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay")):
        for j, what in enumerate(("walk_1", "reach_1")): make_bvh(folder / f"{who}/{what}.bvh", seed=10*i + j, naming=("cmu", "bandai")[i % 2], n_frames=40)
    return folder

def test_the_command_makes_a_dataset(command, folder, tmp_path):
    out = tmp_path / "data_3d_mine.npz"
    done = command(folder, out, "--source", "tests", "--licence", "none")
    assert done.returncode == 0, done.stderr
    for part in ("12 recordings of 6 subjects, 792 frames at 50 fps", "\n0 of 792 frames are left out where paths leave the capture area\n", "to test on: Eve; actions in both: reach, walk", "bandai (6), cmu (6)", "cm (12)", "y (12)", "30 (12)", "% of the keypoints lie inside", "load_dataset('mine', "): assert part in done.stdout, done.stdout
    motion = read_motion(out)
    assert (motion.fps, motion.subjects_test, motion.meta["source"], motion.meta["licence"], motion.meta["units"], json.loads(motion.meta["joint_names"])) == (50, ("Eve",), "tests", "none", "metres", list(H36M_17.names))
    assert np.array_equal(motion.positions["Ann"]["walk 1"], read_bvh(folder / "Ann/walk_1.bvh"))
    data = load_dataset("mine", tmp_path)
    assert data.actions == (["reach", "walk"], ["reach", "walk"]) and len(data.train) == 5*2*4 and len(data.test) == 2*4
    assert not any(key.endswith("pickle") for key in np.load(out, allow_pickle=False).files)
    assert command(folder, tmp_path / "data_3d_again.npz", "--source", "tests", "--licence", "none").returncode == 0
    assert (tmp_path / "data_3d_again.npz").read_bytes() == out.read_bytes()

def test_the_command_ends_with_a_sentence(command, folder, tmp_path):
    done = command(folder, tmp_path / "data_3d_x.npz", "--test", "Zoe")
    assert done.returncode == 1 and "allowed are the subjects Ann, Bob" in done.stderr and "Traceback" not in done.stderr, done.stderr
    for where, out, options, part in ((tmp_path / "none", "data_3d_x.npz", {}, "there is no .bvh file in"), (folder, "x.npz", {}, "named 'x.npz'; data_3d_<name>.npz is allowed"),
                       (folder, "no/data_3d_x.npz", {}, "there is no folder"), (folder, "data_3d_x.npz", dict(table="cmu"), "6 of 12 files cannot be read"),
                       (folder, "data_3d_x.npz", dict(unit="ell"), "the unit 'ell' is unknown"), (folder, "data_3d_x.npz", dict(table="none.json"), "none.json")):
        with pytest.raises(SystemExit) as e: import_bvh.__wrapped__(str(where), str(tmp_path / out), **options)
        assert part in str(e.value)
    assert not list(tmp_path.iterdir())               # nothing is left behind

WRONG = dict(subject=("(", "subject is '(', which is no regular expression"), fps=(0, "fps is 0; 1 to 1000 is allowed"), unit=("-1", "the unit '-1' is unknown; m, cm"), up=("x", "up is 'x'; 'y' and 'z' are allowed"),
             skip=(-1, "skip is -1; a whole number of frames"), source_fps=(2000, "source_fps is 2000; 1 to 1000 is allowed"), table=("mine", "the joint table 'mine' is unknown; bandai, cmu"))

@pytest.mark.parametrize("option", list(WRONG))
@pytest.mark.parametrize("skip_bad", [False, True])
def test_wrong_options_are_said_once_and_at_once(folder, tmp_path, monkeypatch, option, skip_bad):
    monkeypatch.setattr("diffhpe.import_bvh.import_recording", lambda *_, **__: pytest.fail("a file was read"))
    value, sentence = WRONG[option]
    with pytest.raises(SystemExit) as e: import_bvh.__wrapped__(str(folder), str(tmp_path / "data_3d_x.npz"), skip_bad=skip_bad, **{option: value})
    assert str(e.value).startswith(sentence) and "\n" not in str(e.value)

@pytest.mark.parametrize("content, sentence", [("{'Hip'", "not JSON ("), ("", "not JSON ("), ("["*100_000, "not JSON ("), (b"\xff\xfe\0", "not JSON ("), ("[1]", "it holds '[1]'; an object"), ("null", "it holds 'None'; an object"),
    ('{"Hip": "Hips"}', "the joint table 'given' has entries for ['Hip']; one for each of Hip, RHip"), (json.dumps({j: 3 for j in H36M_17.names}), "3 is no entry of a joint table"),
    (json.dumps({j: ["Head", [0, 0, 10**400]] for j in H36M_17.names}), "it holds a whole number of 401 digits")], ids=range(9))
def test_a_table_that_is_none_is_named(folder, tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr("diffhpe.import_bvh.import_recording", lambda *_, **__: pytest.fail("a file was read"))
    (tmp_path / "mine.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit) as e: import_bvh.__wrapped__(str(folder), str(tmp_path / "data_3d_x.npz"), table=str(tmp_path / "mine.json"))
    assert str(e.value).startswith(f"{tmp_path / 'mine.json'}: {sentence}") and "\n" not in str(e.value)

def test_frames_left_out_are_counted_and_little_memory_is_taken(tmp_path):
    "Who walks 23 m straight on is cut into pieces, of which the last ones are too short."
    for who in "ab":
        for i in range(6): make_bvh(tmp_path / f"{who}/walk_{i}.bvh", n_frames=301, stride=[16.2, 1][i % 2], seed=i)
    read = bvh_to_npz(tmp_path, tmp_path / "data_3d_far.npz")
    motion = [w for actions in read.positions.values() for w in actions.values()]
    left = sum(map(len, motion)) - sum(len(p) for w in motion for p in capture_pieces(w))
    tracemalloc.start()
    says, peak = describe_import(read), tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert left > 0 and f"\n{left} of {sum(map(len, motion)):,} frames are left out where paths leave the capture area\n" in says
    assert peak < sum(w.nbytes for w in motion)       # the clips of four cameras are more than seven times as much

def test_bad_files_are_listed_or_left_out(command, tmp_path):
    there = tmp_path / "some"
    for who in "ab": make_bvh(there / f"{who}/walk.bvh")
    (there / "a/bad.bvh").write_text("HIERARCHY"); (there / "b/worse.bvh").write_bytes(b"\0\1\2")
    with pytest.raises(ValueError) as e: read_bvh_folder(there)
    assert str(e.value).startswith("2 of 4 files cannot be read:\n") and "bad.bvh: there is no line MOTION" in str(e.value) and "worse.bvh: it begins with" in str(e.value)
    done = command(there, tmp_path / "data_3d_some.npz", "--skip_bad")
    assert done.returncode == 0 and done.stdout.count("left out: ") == 2
    assert {s: list(a) for s, a in read_motion(tmp_path / "data_3d_some.npz").positions.items()} == {"a": ["walk"], "b": ["walk"]}

def test_options_reach_the_files(command, folder, tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(JOINT_TABLES["cmu"]))
    done = command(folder, tmp_path / "data_3d_x.npz", "--table", tmp_path / "table.json", "--skip_bad", "--test", "Ann,Cyd", "--fps", 25, "--skip", 3, "--source_fps", 15, "--unit", "0.012", "--subject", "^(\\w+)/")
    assert done.returncode == 0, done.stderr
    motion = read_motion(tmp_path / "data_3d_x.npz")
    assert (motion.fps, motion.subjects_train, motion.subjects_test) == (25, ("Eve",), ("Ann", "Cyd")) and "given (6)" in done.stdout and "0.012 m (6)" in done.stdout
    assert len(motion.positions["Eve"]["walk 1"]) == int(36/15*25) + 1

# The excerpt: 36 frames of subject 131, trial 1, every fourth of the 120 a second. The data used in this project was obtained from mocap.cs.cmu.edu.
# The database was created with funding from NSF EIA-0196217. CMU's terms: free for all uses; not to be resold directly, even in converted form.

def test_one_person_is_divided_only_by_name(command, tmp_path):
    for name in ("131_01", "131_02"): (tmp_path / f"{name}.bvh").write_text(EXCERPT.read_text())
    with pytest.raises(ValueError, match="the only subject is 131, so that there is none to test on; name recordings to test on, as in test='131/motion 02'"): read_bvh_folder(tmp_path)
    done = command(tmp_path, tmp_path / "data_3d_one.npz", "--test", "131/motion 02")
    assert done.returncode == 0, done.stderr
    assert {s: list(a) for s, a in read_motion(tmp_path / "data_3d_one.npz").positions.items()} == {"131": ["motion 01"], "131-test": ["motion 02"]}
    data = load_dataset("one", tmp_path, keypoints="gt")
    assert [len(data.train), len(data.test), len(data.train[0])] == [4, 4, 59]

@pytest.mark.parametrize("names, test", [(["131_01"], "131"), (["131_01"], "all"), (["131_01"], "131/motion 01"), (["131_01", "131_02"], "131"), (["a_walk", "b_walk"], "all"), (["a_walk", "b_walk"], "a,b")])
def test_data_for_evaluation_alone(command, tmp_path, names, test):
    for name in names: (tmp_path / f"{name}.bvh").write_text(EXCERPT.read_text())
    done = command(tmp_path, tmp_path / "data_3d_eval.npz", "--test", test)
    assert done.returncode == 0 and "to train on: nobody; to test on: " in done.stdout and "for evaluation alone" in done.stdout, done.stdout + done.stderr
    motion = read_motion(tmp_path / "data_3d_eval.npz")
    assert motion.subjects_train == () and sum(map(len, motion.positions.values())) == len(names)
    data = load_dataset("eval", tmp_path, keypoints="gt")
    assert (len(data.train), len(data.test)) == (0, 4*len(names)) and np.isfinite(data.test[0].poses).all()

def test_short_recordings_are_left_out_and_said(command, tmp_path):
    for who in "ab":
        make_bvh(tmp_path / f"in/{who}/walk_1.bvh"); make_bvh(tmp_path / f"in/{who}/walk_2.bvh", n_frames=15)   # 25 frames at 50 fps
    make_bvh(tmp_path / "in/c/walk_1.bvh", n_frames=2)
    done = command(tmp_path / "in", tmp_path / "data_3d_short.npz")
    assert done.returncode == 0 and done.stdout.count("left out: ") == 3 and "3 of 5 recordings are too short and left out: " in done.stderr, done.stdout + done.stderr
    assert "walk_2.bvh: it has 24 frames at 50 fps; a window needs 27" in done.stdout and "2 recordings of 2 subjects" in done.stdout
    assert {s: list(a) for s, a in read_motion(tmp_path / "data_3d_short.npz").positions.items()} == {"a": ["walk 1"], "b": ["walk 1"]}
    only = tmp_path / "only"; make_bvh(only / "a/walk.bvh", n_frames=10)
    done = command(only, tmp_path / "data_3d_none.npz")
    assert done.returncode == 1 and "all 1 recordings are too short" in done.stderr and "Traceback" not in done.stderr

def test_swapped_names_of_the_excerpt_are_refused(command, tmp_path):
    for who in "ab": (tmp_path / f"{who}_walk.bvh").write_text(exchange_sides(EXCERPT.read_text()))
    done = command(tmp_path, tmp_path / "data_3d_x.npz")
    assert done.returncode == 1 and "a_walk.bvh and 1 more of 2 recordings: the knees bend forwards" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "data_3d_x.npz").exists()

def test_positions_of_the_excerpt_are_those_of_another_library():
    "Frames 0, 12, 24 and 35 as pybvh 0.9.0 reads them, in the file's own unit and axes."
    positions, names = bvh_kinematics(read_bvh_motion(EXCERPT))[0], read_bvh_motion(EXCERPT).names
    for joint, there in dict(
        LeftWrist=[[6.204339, 15.376939, -23.461516], [8.877191, 18.467821, -8.679825], [9.151185, 15.179932, -3.581566], [7.799268, 14.820534, 1.731394]],
        RightWrist=[[1.595939, 15.401236, -17.555183], [.986998, 16.010951, -15.297605], [1.388588, 14.551762, -4.653696], [3.035328, 15.631645, 6.551896]],
        LeftAnkle=[[4.094447, 2.028187, -14.656953], [4.364424, 1.797292, -13.786587], [5.81393, 5.136339, -7.729386], [6.572509, 1.907483, 11.526946]],
        Head=[[4.494104, 22.800786, -19.650453], [4.790758, 23.865686, -11.1753], [4.841191, 23.487437, -2.790669], [5.560035, 23.245831, 4.141976]]).items():
        assert np.abs(positions[[0, 12, 24, 35], names.index(joint)] - there).max() < 1e-6

def test_the_walk_of_the_excerpt():
    world = read_bvh(EXCERPT)
    speed = np.linalg.norm(np.diff(world[[0, -1], 0, :2], axis=0))/(58/50)
    assert world.shape == (59, 17, 3) and .8 < speed < 2 and 1.3 < world[:, 10, 2].mean() < 1.9 and -.05 < world[..., 2].min() < .15
    feet = np.linalg.norm(np.diff(world[:, [3, 6]], axis=0), axis=-1)*50
    assert (feet.min(1) < .5).mean() > .5             # one foot stands, most of the time
    assert np.linalg.norm(np.diff(world, 2, axis=0), axis=-1).max()*2500 < 50

# --- the raw files of ../shared, where they are

RAW = sorted((SHARED / "bvh").glob("*.bvh")) or [Path("none.bvh")]

@needs_shared
@pytest.mark.parametrize("path", RAW, ids=lambda p: p.stem)
def test_reference_positions(path):
    reference = np.load(SHARED / "bvh/reference_positions.npz", allow_pickle=False)
    names, frames, positions = (reference[f"{path.stem}/{k}"] for k in ("names", "frames", "positions"))
    motion = read_bvh_motion(path)
    assert list(motion.names) == list(names)
    assert np.abs(bvh_kinematics(motion)[0][frames] - positions).max() < 1e-5

@needs_shared
@pytest.mark.parametrize("path", RAW, ids=lambda p: p.stem)
def test_left_up_and_knees(path):
    found = import_recording(path)
    left, up, forward = np.moveaxis(body_axes(found.world.astype(float)), -1, 0)
    w = found.world
    assert (found.table, found.unit, found.up, found.file_fps) == (("cmu", "cmu", "y", 120) if path.stem.startswith("131") else ("bandai", "cm", "y", 30))
    assert (w[:, 10, 2] > w[:, [3, 6], 2].max(1)).all() and (((w[:, 9] - w[:, 8])*forward).sum(-1) > 0).mean() > .9
    for knee in (2, 5): assert (((w[:, knee] - (w[:, knee - 1] + w[:, knee + 1])/2)*forward).sum(-1) > -.01).all()
    if "left-hand" in path.stem: assert w[:, 13, 2].max() > w[:, 16, 2].max() + .1
    if "turn-left" in path.stem:
        heading = np.unwrap(np.arctan2(forward[:, 1], forward[:, 0]))
        assert heading[-1] - heading[0] > .5          # anticlockwise, seen from above

@needs_shared
@pytest.mark.parametrize("path", RAW, ids=lambda p: p.stem)
def test_swapped_raw_files_are_refused(tmp_path, path):
    (tmp_path / path.name).write_text(exchange_sides(path.read_text()))
    with pytest.raises(ValueError, match="the knees bend forwards, so that left and right"): read_bvh(tmp_path / path.name)

@needs_shared
@pytest.mark.skipif(not (SHARED / "data_3d_bandai_flat.npz").is_file(), reason="../shared/data/data_3d_bandai_flat.npz is not here")
def test_bodies_are_built_as_in_the_converted_set():
    "The set's bodies are scaled, but angles of the pose and ratios of lengths on a line are kept within its factors of 0.94 to 1.06."
    ours = np.concatenate([read_bvh(p) for p in RAW if p.stem.startswith("dataset")]).astype(float)
    theirs = np.load(SHARED / "data_3d_bandai_flat.npz", allow_pickle=False)
    theirs = [theirs[k].astype(float) for k in theirs.files if k.startswith("S1/")]
    pairs = [(0, 1), (1, 2), (2, 3), (0, 7), (7, 8), (8, 9), (9, 10), (8, 11), (11, 12), (12, 13)]
    lengths = [np.array([np.median(np.linalg.norm(p[:, a] - p[:, b], axis=-1)) for a, b in pairs]) for p in (ours, np.concatenate(theirs))]
    ratio = lengths[1]/lengths[0]
    assert np.abs(np.log(ratio/1.079)).max() < .1, dict(zip(pairs, ratio.round(3)))
