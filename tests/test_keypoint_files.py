"Keypoint files that the tests write themselves, in every kind's documented form, from one known clip; then the same files damaged at random."
import copy, json, random

import numpy as np
import pytest

from diffhpe import command, following, keypoint_files
from diffhpe.lifted import LiftedMotion
from diffhpe.keypoint_files import DetectedClip, open_keypoint_file, people_in, read_keypoint_file, write_keypoint_npz
from diffhpe.keypoint_formats import FORMATS
from diffhpe.layouts import JOINTS, LAYOUTS, body_note, fit_picture, to_h36m
from diffhpe.skeleton import H36M_17
from diffhpe.trajectory import Intrinsics

LAYOUT_OF = {17: "coco", 18: "coco18", 25: "body25", 26: "halpe26"}

def known(K=17, F=12, start=3, shift=0., missing=(5,), seed=0):
    "(F, K, 3) of a person who walks to the right: x, y px and confidence; zeros where there is nothing."
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.uniform(100, 300, (1, K, 2)) + rng.normal(size=(F, K, 2)), rng.uniform(.2, 1, (F, K, 1))], -1)
    rows[..., 0] += shift + 3*np.arange(F)[:, None]
    rows[2, 1] = 0
    for f in missing: rows[f] = 0
    return rows.round(4)

def clip_of(rows, start=3, **kw):
    "What should be read of such rows."
    return DetectedClip(rows[..., :2], rows[..., 2], start + np.arange(len(rows)), **kw)

def same(a, b):
    for name in ("keypoints", "confidence", "frames"): np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("layout", "image_size", "fps", "person"): assert getattr(a, name) == getattr(b, name), name

def there(rows): return [(f, row.tolist()) for f, row in enumerate(rows) if row.any()]
def flat(row): return [v for joint in row for v in joint]

# --- a writer for each kind: persons {id or None: rows} → path

def openpose(folder, persons, start=3):
    folder = folder/"openpose"; folder.mkdir()
    for f in range(len(next(iter(persons.values())))):
        people = [{"person_id": [-1 if who is None else who], "pose_keypoints_2d": flat(rows[f]), "face_keypoints_2d": [], "hand_left_keypoints_2d": []} for who, rows in persons.items() if rows[f].any()]
        (folder/f"my2_video_{f + start:012}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
    return folder

def by_frame(folder, persons, start=3):
    n = len(next(iter(persons.values())))
    pages = {f"{f + start}.jpg": {"version": 0.1, "people": [{"pose_keypoints_2d": flat(rows[f])} for rows in persons.values() if rows[f].any()]} for f in range(n)}
    (folder/"frames.json").write_text(json.dumps(pages)); return folder/"frames.json"

def alphapose(folder, persons, start=3):
    rows = [(f, who, row) for who, rows in persons.items() for f, row in there(rows)]
    items = [{"image_id": f"{f + start:06}.jpg", "category_id": 1, "keypoints": flat(row), "score": 2.7, "box": [0, 0, 9, 9], **({} if who is None else {"idx": [float(who)]})} for f, who, row in sorted(rows, key=lambda r: r[0])]
    (folder/"alphapose-results.json").write_text(json.dumps(items)); return folder/"alphapose-results.json"

def coco_results(folder, persons, start=3):
    items = [{"image_id": f + start, "category_id": 1, "keypoints": flat(row), "score": .8, **({} if who is None else {"track_id": who})} for who, rows in persons.items() for f, row in there(rows)]
    (folder/"results.json").write_text(json.dumps(items)); return folder/"results.json"

def instances(persons, f):
    return [{"keypoints": [joint[:2] for joint in rows[f].tolist()], "keypoint_scores": rows[f, :, 2].tolist(), "bbox": [[0, 0, 9, 9]], "bbox_score": .9, **({} if who is None else {"track_id": who})}
            for who, rows in persons.items() if rows[f].any()]

def mmpose(folder, persons, start=3, meta=False):
    pages = [{"frame_id": f + start, "instances": instances(persons, f)} for f in range(len(next(iter(persons.values()))))]
    K = next(iter(persons.values())).shape[1]
    names = {str(k): name for k, name in enumerate(JOINTS[LAYOUT_OF[K]].split())}
    (folder/"mmpose.json").write_text(json.dumps({"meta_info": {"keypoint_id2name": names}, "instance_info": pages} if meta else pages)); return folder/"mmpose.json"

def mmpose_meta(folder, persons, start=3): return mmpose(folder, persons, start, True)

def coco_annotations(folder, persons, start=3):
    K, n = next(iter(persons.values())).shape[1], len(next(iter(persons.values())))
    images = [{"id": 900 + 7*f, "file_name": f"v/{f + start:06}.jpg", "width": 640, "height": 480} for f in range(n)]
    marks = [{"id": 5*f + i, "image_id": 900 + 7*f, "category_id": 1, "num_keypoints": K, "keypoints": flat(row), **({} if who is None else {"track_id": who})} for i, (who, rows) in enumerate(persons.items()) for f, row in there(rows)]
    data = {"info": {}, "images": images, "annotations": marks, "categories": [{"id": 1, "name": "person", "keypoints": JOINTS[LAYOUT_OF[K]].split(), "skeleton": []}]}
    (folder/"person_keypoints.json").write_text(json.dumps(data)); return folder/"person_keypoints.json"

def arrays_json(folder, persons, start=3):
    stack = np.stack(list(persons.values()), 1)                                # (F, P, K, 3), without those who are not there
    pages = [[one for one in page if one.any()] for page in stack]
    data = {"keypoints": [[one[:, :2].tolist() for one in page] for page in pages], "scores": [[one[:, 2].tolist() for one in page] for page in pages], "frames": [f + start for f in range(len(stack))]}
    (folder/"rtm.json").write_text(json.dumps(data)); return folder/"rtm.json"

def arrays_npz(folder, persons, start=3):
    stack = np.stack(list(persons.values()), 1)
    np.savez(folder/"rtm.npz", keypoints=stack[..., :2].astype("f4"), scores=stack[..., 2].astype("f4"), frames=start + np.arange(len(stack))); return folder/"rtm.npz"

WRITERS = [openpose, by_frame, alphapose, coco_results, mmpose, mmpose_meta, coco_annotations, arrays_json, arrays_npz]
# those of one person, or without the number of the first frame: {None: rows} only, frames from 0

def poseflow(folder, rows):
    pages = {f"{f}.jpg": [{"keypoints": flat(row), "scores": 2.1, "idx": 5}] if row.any() else [] for f, row in enumerate(rows)}
    (folder/"poseflow.json").write_text(json.dumps(pages)); return folder/"poseflow.json"

def alphapose_merged(folder, rows):
    items = [{"image_id": f"{f}.jpg", "keypoints": flat(row), "score": 1., "idx": [[5.0], [7.0]]} for f, row in there(rows)]
    (folder/"merged.json").write_text(json.dumps(items)); return folder/"merged.json"

def kinetics(folder, rows):
    pages = [{"frame_index": f, "skeleton": [{"pose": [v for joint in row for v in joint[:2]], "score": [joint[2] for joint in row]}] if np.any(row) else []} for f, row in enumerate(rows.tolist())]
    (folder/"kinetics.json").write_text(json.dumps({"data": pages, "label": "walk", "label_index": 3})); return folder/"kinetics.json"

def ultralytics(folder, rows):
    pages = [[{"name": "person", "class": 0, "confidence": .9, "track_id": 5, "box": {}, "keypoints": dict(zip(("x", "y", "visible"), map(list, zip(*row))))}] if np.any(row) else [] for row in rows.tolist()]
    (folder/"ultralytics.json").write_text(json.dumps(pages)); return folder/"ultralytics.json"

def json_lines(folder, rows):
    (folder/"a.jsonl").write_text("".join(json.dumps({"frame": f, "track_id": 5, "keypoints": flat(row)}) + "\n" for f, row in there(rows))); return folder/"a.jsonl"

def landmarks(folder, rows):
    pages = [{"frame": f, "landmarks": [dict(x=x, y=y, z=0, visibility=c) for x, y, c in row] if np.any(row) else []} for f, row in enumerate(rows.tolist())]
    (folder/"landmarks.json").write_text(json.dumps(pages)); return folder/"landmarks.json"

def landmark_lists(folder, rows):
    pages = [[dict(x=x, y=y, z=0, visibility=c, presence=1) for x, y, c in row] if np.any(row) else None for row in rows.tolist()]
    (folder/"landmarks.json").write_text(json.dumps(pages)); return folder/"landmarks.json"

def wide(folder, rows, name="{}".format, axes=("x", "y", "visibility"), cells=",".join, sep="_"):
    names = JOINTS["coco"].split()
    lines = [cells(["frame", *(f"{name(j)}{sep}{a}" for j in names for a in axes)]), *(cells([str(f), *("" if not np.any(row) else str(v) for joint in row for v in joint)]) for f, row in enumerate(rows.tolist()))]
    (folder/"wide.csv").write_text("\n".join(lines)); return folder/"wide.csv"

def wide_numbers(folder, rows):
    lines = [";".join(f"{a}{k}" for k in range(17) for a in "xyv"), *(";".join(map(str, flat(row))) for row in rows.tolist())]
    (folder/"numbers.csv").write_text("\n".join(lines)); return folder/"numbers.csv"

def long(folder, rows):
    lines = ["timestamp,person_id,landmark,x,y,visibility", *(f"{f/25:.4f},5,{j},{x},{y},{c}" for f, row in enumerate(rows.tolist()) for j, (x, y, c) in enumerate(row))]
    (folder/"long.csv").write_text("\r\n".join(lines)); return folder/"long.csv"

def labels(folder, rows):
    folder = folder/"labels"; folder.mkdir()
    for f, row in enumerate(rows.tolist()): (folder/f"v_{f + 1}.txt").write_text(f"0 .5 .5 .2 .4 {' '.join(map(str, flat(row)))} .9 5\n" if np.any(row) else "")
    return folder

def videopose(folder, rows):
    np.savez(folder/"data_2d_custom_a.npz", positions_2d={"a.mp4": {"custom": [rows[..., :2].astype("f4")]}},
             metadata={"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1], [2]], "video_metadata": {"a.mp4": {"w": 640, "h": 480}}}); return folder/"data_2d_custom_a.npz"

def detectron2(folder, rows):
    "As VideoPose3D's infer_video_d2.py: for each frame [nothing, (n, 4, 17)], with x, y, a zero and the confidence, in an object array of shape (F, 2)."
    keypoints = np.empty((len(rows), 2), object); boxes, segments = keypoints.copy(), np.array([None]*len(rows))
    for f, row in enumerate(rows):
        keypoints[f] = [[], np.stack([row[:, 0], row[:, 1], 0*row[:, 0], row[:, 2]])[None].astype("f4") if row.any() else []]
        boxes[f] = [[], np.array([[0, 0, 9, 9, .9]], "f4") if row.any() else []]
    np.savez_compressed(folder/"a.mp4.npz", boxes=boxes, segments=segments, keypoints=keypoints, metadata={"w": 640, "h": 480}); return folder/"a.mp4.npz"

def deeplabcut(folder, rows):
    names, order = JOINTS["coco"].split(), np.random.default_rng(0).permutation(17)       # joints in any order
    parts = [names[k] for k in order for _ in "xyp"]
    head = [["scorer", *["DLC_resnet50"]*51], ["bodyparts", *parts], ["coords", *["x", "y", "likelihood"]*17]]
    cells = [[f, *("" if not np.any(row) else v for k in order for v in row[k])] for f, row in enumerate(rows.tolist())]
    (folder/"dlc.csv").write_text("\n".join(",".join(map(str, row)) for row in head + cells)); return folder/"dlc.csv"

def deeplabcut_people(folder, rows):
    text = deeplabcut(folder, rows).read_text().split("\n")
    (folder/"dlc.csv").write_text("\n".join([text[0], ",".join(["individuals", *["5"]*51]), *text[1:]])); return folder/"dlc.csv"

def sleap(folder, rows):
    lines = ["track,frame_idx,instance.score," + ",".join(f"{j}.{a}" for j in JOINTS["coco"].split() for a in ("x", "y", "score"))]
    lines += [f"5,{f},.9," + ",".join(map(str, flat(row))) for f, row in there(rows)]
    (folder/"sleap.csv").write_text("\n".join(lines)); return folder/"sleap.csv"

def wide_camel(folder, rows):
    camel = lambda name: name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:])
    return wide(folder, rows, camel, sep=".")

def wide_sorted(folder, rows):
    "As pandas sorts columns: x_0, x_1, x_10, …"
    columns = sorted((f"{a}_{k}", k, n) for k in range(17) for n, a in enumerate(("x", "y", "vis")))
    lines = [",".join(["frame", *(name for name, *_ in columns)]), *(",".join([str(f), *(str(row[k][n]) for _, k, n in columns)]) for f, row in enumerate(rows.tolist()))]
    (folder/"sorted.csv").write_text("\n".join(lines)); return folder/"sorted.csv"

def marks_by_name(folder, rows):
    pages = [{name: dict(x=x, y=y, z=0, visibility=c) for name, (x, y, c) in zip(map(str.upper, JOINTS["coco"].split()), row)} if np.any(row) else {} for row in rows.tolist()]
    (folder/"names.json").write_text(json.dumps(pages)); return folder/"names.json"

def marks_by_number(folder, rows):
    pages = {str(f): {str(k): dict(x=x, y=y, z=0, visibility=c) for k, (x, y, c) in enumerate(row)} if np.any(row) else {} for f, row in enumerate(rows.tolist())}
    (folder/"numbers.json").write_text(json.dumps(pages)); return folder/"numbers.json"

def marks_as_numbers(folder, rows):
    pages = [{"frame": f, "landmarks": [[x, y, -.1, c] for x, y, c in row] if np.any(row) else []} for f, row in enumerate(rows.tolist())]
    (folder/"marks.json").write_text(json.dumps(pages)); return folder/"marks.json"

def appended(folder, rows):
    "What Ultralytics' result.to_json() gives for each frame, written one behind the other."
    pages = json.loads(ultralytics(folder, rows).read_text())
    (folder/"a.json").write_text("\n".join(json.dumps(page, indent=2) for page in pages)); return folder/"a.json"

def openpose_lines(folder, rows):
    (folder/"a.jsonl").write_text("\n".join(json.dumps({"people": [{"pose_keypoints_2d": flat(row)}] if np.any(row) else []}) for row in rows.tolist())); return folder/"a.jsonl"

def annotations_in_another_order(folder, rows):
    path, order = coco_annotations(folder, {None: visible_only(rows)}, 0), np.random.default_rng(0).permutation(17)
    data = json.loads(path.read_text()); data["categories"][0]["keypoints"] = [data["categories"][0]["keypoints"][k] for k in order]
    for mark in data["annotations"]: mark["keypoints"] = [v for k in order for v in mark["keypoints"][3*k:3*k + 3]]
    path.write_text(json.dumps(data)); return path

ONE_PERSON = [poseflow, alphapose_merged, kinetics, ultralytics, json_lines, landmarks, landmark_lists, wide, wide_numbers, long, labels, videopose,
              detectron2, deeplabcut, deeplabcut_people, sleap, wide_camel, wide_sorted, marks_by_name, marks_by_number, marks_as_numbers, appended, openpose_lines, annotations_in_another_order]
BY_NAME, SIZED = (poseflow, alphapose_merged, ultralytics, json_lines, long, labels, deeplabcut_people, sleap, appended), (videopose, detectron2, annotations_in_another_order)

@pytest.mark.parametrize("write", ONE_PERSON)
def test_other_kinds_read_back(write, tmp_path):
    rows = known().clip(None, [np.inf, np.inf, 1])
    clip = read_keypoint_file(write(tmp_path, rows))
    if write in (videopose, annotations_in_another_order): rows[..., 2] = rows[..., 0] != 0
    np.testing.assert_array_equal(clip.keypoints, clip_of(rows).keypoints); np.testing.assert_allclose(clip.confidence, clip_of(rows).confidence)
    assert clip.layout == "coco" and clip.image_size == ((640, 480) if write in SIZED else None) and np.diff(clip.frames).tolist() == [1]*11
    assert str(clip.person) == ("5" if write in BY_NAME else "None")

def test_one_page_is_one_frame(tmp_path):
    row = known()[0]
    for page in ({"people": [{"pose_keypoints_2d": flat(row)}]}, {"bodies": [{"joints": flat(row)}]}, {"instances": instances({None: known()}, 0)},
                 instances({None: known()}, 0), {"landmarks": [dict(x=x, y=y, visibility=c) for x, y, c in row]},
                 {"image": "a.jpg", "keypoints": row.tolist()}, {"keypoints": flat(row)}, row.tolist(), {"image_id": 7, "keypoints": flat(row), "score": .9},
                 [{"image_id": 7, "keypoints": flat(row)}], {"keypoints": [dict(x=x, y=y, score=c) for x, y, c in row]},
                 {"0.jpg": [{"keypoints": flat(row), "idx": 1}]}, {str(k): dict(x=x, y=y, visibility=c) for k, (x, y, c) in enumerate(row)},
                 {"data": [{"frame_index": 1, "skeleton": [{"pose": [v for x, y, _ in row for v in (x, y)], "score": [c for *_, c in row]}]}]}):
        (tmp_path/"a.json").write_text(json.dumps(page))
        np.testing.assert_array_equal(read_keypoint_file(tmp_path/"a.json").keypoints, clip_of(row[None]).keypoints)
    path = labels(tmp_path, known())/"v_1.txt"
    np.testing.assert_array_equal(read_keypoint_file(path).keypoints, clip_of(row[None]).keypoints)

def test_several_people_of_detectron2_are_followed(tmp_path):
    path, (a, b) = detectron2(tmp_path, known()), (known(missing=()), known(missing=(), shift=500, seed=1))
    keypoints = np.empty((12, 2), object)
    for f in range(12): keypoints[f] = [[], np.stack([np.stack([one[:, 0], one[:, 1], 0*one[:, 0], one[:, 2]]) for one in ((a[f], b[f]) if f % 2 else (b[f], a[f]))])]
    np.savez(path, boxes=keypoints, segments=np.array([None]*12), keypoints=keypoints, metadata={"w": 64, "h": 48})
    clips = [read_keypoint_file(path, person=who) for who in people_in(path)]
    assert sorted(np.nanmax(np.abs(clip.keypoints - one[..., :2])) < 1e-3 for clip in clips for one in (a, b)) == [False, False, True, True]

def test_the_rate_of_a_video_is_taken_from_videopose3d(tmp_path):
    for fps in (None, 25): 
        meta = {"layout_name": "coco", "video_metadata": {"a": {"w": 640, "h": 480} | ({"fps": fps} if fps else {})}}
        np.savez(tmp_path/"a.npz", positions_2d={"a": {"custom": [known()[..., :2]]}}, metadata=meta)
        assert read_keypoint_file(tmp_path/"a.npz").fps == fps

@pytest.mark.parametrize("name, content", [("a.trc", b"PathFileType\t4\t(X/Y/Z)\ta.trc\nDataRate\n"), ("a.h5", b"\x89HDF\r\n\x1a\n"), ("a.mp4", b"\0\0\0 ftypisom\xff\xfe"), ("a.xml", b"<xml>"), ("a.csv", b"a;b\n1;2\n"), ("a.c3d", b"\x02\x50\xff\xfe"), ("a.json", b"{")])
def test_what_is_not_read_gets_a_sentence_that_names_what_is(name, content, tmp_path):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(ValueError) as e: open_keypoint_file(tmp_path/name)
    assert str(e.value).startswith(f"{tmp_path/name}: ") and "JSON, JSON lines, CSV with a header, .npz archives and Ultralytics' .txt labels are read" in str(e.value)

def test_unknown_names_are_no_layout(tmp_path):
    "17 joints of a table are COCO's by their number only where they have no names."
    path = wide(tmp_path, known(), lambda name: "my " + name)
    assert read_keypoint_file(path).layout is None and read_keypoint_file(path, "coco").layout == "coco"

WITH_IDS = [openpose, alphapose, coco_results, mmpose, mmpose_meta, coco_annotations]

def visible_only(rows):
    "What annotations can say of confidences: labelled or not."
    rows = rows.copy(); rows[..., 2] = 2*(rows[..., 2] > 0); return rows

@pytest.mark.parametrize("K", [17, 26])
@pytest.mark.parametrize("write", WRITERS)
def test_one_person_reads_back(write, K, tmp_path):
    rows = known(K)
    if write is coco_annotations: rows = visible_only(rows)
    clip = read_keypoint_file(write(tmp_path, {None: rows}))
    same(clip, clip_of(rows.clip(None, [np.inf, np.inf, 1]), layout=LAYOUT_OF[K], image_size=(640, 480) if write is coco_annotations else None))
    pixels, visible, confidence = to_h36m(clip.keypoints, clip.layout, clip.confidence)     # and goes on to the next step
    assert pixels.shape == (12, 17, 2) and not visible[5].any() and visible[6].any()

@pytest.mark.parametrize("write", WITH_IDS)
def test_people_are_told_apart_by_their_ids(write, tmp_path):
    a, b = known(missing=(0, 4, 5)), known(missing=(7,), shift=500, seed=1)
    if write is coco_annotations: a, b = visible_only(a), visible_only(b)
    path = write(tmp_path, {4: a, 9: b})
    assert {who: n for who, (n, _) in people_in(path).items()} == {9: 11, 4: 9}
    for who, rows in ((4, a), (9, b), (None, b)):
        same(read_keypoint_file(path, person=who), clip_of(rows.clip(None, [np.inf, np.inf, 1]), layout="coco", person=who or 9, image_size=(640, 480) if write is coco_annotations else None))
    with pytest.raises(ValueError, match="there is nobody with the id 5; there are 9, 4"): read_keypoint_file(path, person=5)

@pytest.mark.parametrize("write", WRITERS)
def test_people_without_ids_are_followed_through_each_other(write, tmp_path):
    F, rng = 60, np.random.default_rng(3)
    body = rng.uniform(0, 100, (17, 2))
    a, b = (np.concatenate([body + (x0, 5) + np.stack([v*np.arange(F), np.zeros(F)], 1)[:, None] + rng.normal(size=(F, 17, 2))/2, np.full((F, 17, 1), c)], -1).round(3) for x0, v, c in ((10, 6, .8), (370, -6, .9)))
    a[29:32] = 0                                                                # hidden where they meet
    path = write(tmp_path, {None: a, -1: b} if write not in (arrays_npz, arrays_json, by_frame) else {None: a, "b": b})
    counts = people_in(path)
    assert sorted(n for n, _ in counts.values()) == [57, 60]
    one, two = (read_keypoint_file(path, person=who).keypoints for who in counts)
    np.testing.assert_allclose(one, b[..., :2], rtol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(two), a[..., :2], rtol=1e-6)

def test_equals_are_told_by_confidence(tmp_path):
    a, b = known(missing=()), known(missing=(), shift=500, seed=1)
    a[..., 2], b[..., 2] = .5, .6
    a[2, 1, 2] = b[2, 1, 2] = 0
    for persons in ({1: a, 2: b}, {2: b, 1: a}):
        assert read_keypoint_file(coco_results(tmp_path, persons)).person == 2

def test_own_files_are_read_back(tmp_path):
    clip = clip_of(known(), layout="coco", image_size=(1920, 1080), fps=25., person="left one")
    write_keypoint_npz(tmp_path/"a.bin", clip)                                  # the name does not matter
    same(read_keypoint_file(tmp_path/"a.bin"), clip)
    with np.load(tmp_path/"a.bin") as f: assert all(f[key].dtype.kind in "fiU" for key in f.files)

def test_every_kind_is_written_here(tmp_path):
    seen = set()
    for i, write in enumerate([*WRITERS, *ONE_PERSON]):
        (tmp_path/str(i)).mkdir()
        path = write(tmp_path/str(i), {None: known()} if write in WRITERS else known())
        seen.add(open_keypoint_file(path).sightings.kind.split(" of ")[0])
    assert seen == set(FORMATS)

def test_a_file_is_read_and_followed_once(tmp_path, monkeypatch):
    "However many people are lifted; nobody is lifted here, a stand-in notes who would be."
    persons = {None: known(missing=()), -1: known(missing=(5, 6), shift=500, seed=1), "b": known(missing=(), shift=900, seed=2)}
    path, calls = by_frame(tmp_path, persons), []
    for module, name in ((keypoint_files, "load_json"), (keypoint_files, "recognise"), (following, "follow_people")):
        old = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, old=old, name=name, **kw: calls.append(name) or old(*a, **kw))
    def lifter(keypoints, size, layout, confidence, rate, person, **options):
        calls.append(person)
        return LiftedMotion(np.zeros((len(keypoints), 17, 3)), fps=rate)
    command.lift_file(path, lifter, (1920, 1080), "coco", "all", fps=25, say=print)
    assert calls[:3] == ["load_json", "recognise", "follow_people"] and sorted(calls[3:]) == ["0", "1", "2"]
    del calls[:]
    found = open_keypoint_file(path)
    for who in found.people: same(found.clip(who), read_keypoint_file(path, person=who))
    same(found.clip(), read_keypoint_file(path)); same(found.clip(2, "coco"), read_keypoint_file(path, "coco", 2))
    assert calls.count("follow_people") == 1 + 3 + 2

class Stub:
    "A lifter that holds keypoints against the picture, keeps what it is asked, and lifts nothing."
    def __init__(self): self.asked = []
    def __call__(self, keypoints, size, layout, confidence, rate, person, say, **options):
        keypoints, told = fit_picture(keypoints, confidence, size)
        for sentence in (*told, layout and body_note(keypoints, layout, confidence)):
            if sentence: say(sentence)
        self.asked.append(dict(keypoints=keypoints, size=size, fps=rate, person=person, **options))
        return LiftedMotion(np.zeros((len(keypoints), 17, 3)), fps=rate, person=person)

def lifted(path, size=(640, 480), layout="coco", person=None, **options):
    "What a lifter is asked for a file, and what is said."
    lifter, said = Stub(), []
    command.lift_file(path, lifter, size, layout, person, say=said.append, **options)
    return lifter.asked, said

def test_all_are_those_who_are_really_there(tmp_path):
    "Ghosts of a frame are left out, however many there are, in one sentence; who passes by for a second is not."
    seen_in = lambda frames, k: known(F=100, missing=[f for f in range(100) if f not in frames], shift=9*k, seed=k)
    people = {7: seen_in(range(100), 0), 4: seen_in(range(30), 1), 5: seen_in(range(10), 2)}
    path = coco_results(tmp_path, people | {50 + f: seen_in({f}, f) for f in range(0, 100, 3)})
    asked, said = lifted(path, (1920, 1080), person="all", fps=25)
    assert [(one["person"], len(one["keypoints"])) for one in asked] == [("7", 100), ("4", 30)]
    assert len(said) == 3 and said[0].endswith(" and 30 others")   # the other two: joints at random look odd
    assert all("look odd" in s and "make a body" not in s for s in said[1:])
    assert said[0].startswith(f"{path}: 35 of 37 people are seen in fewer than 13 frames and left out: 5, ")
    assert [len(one["keypoints"]) for one in lifted(path, (1920, 1080), person="5", fps=25)[0]] == [10]   # by name, yes

@pytest.mark.parametrize("write", WRITERS)
def test_a_size_that_does_not_fit_is_noticed(write, tmp_path):
    "The walker is in 100 … 340 by 100 … 300 px."
    path = write(tmp_path, {None: known()})
    assert not [s for s in lifted(path, (640, 480), fps=50)[1] if "outside" in s]
    said = lifted(path, (280, 480), fps=50)[1]
    assert any("of the joints lie outside of the pictures, if their size is 280x480" in s for s in said)
    with pytest.raises(ValueError, match="of the joints lie outside of the pictures, if their size is 160x120"): lifted(path, (160, 120), fps=50)

@pytest.mark.parametrize("write", [w for w in WRITERS if w is not coco_annotations])
def test_shares_of_the_picture_are_pixels_in_the_end(write, tmp_path):
    "OpenPose's keypoint_scale 3, MediaPipe, YOLO's xyn; and keypoint_scale 4, which could be mistaken for it."
    rows = known()
    shares = rows/(640, 480, 1)
    path = write(tmp_path, {None: shares})
    asked, said = lifted(path, fps=50)
    wanted = command.even_rows(clip_of(rows.clip(None, [np.inf, np.inf, 1])))[0].keypoints
    np.testing.assert_allclose(np.nan_to_num(asked[0]["keypoints"]), np.nan_to_num(wanted), rtol=1e-5)
    assert any(f"{path}: keypoints from 0 to 1: shares of the picture, 640x480, assumed" in s for s in said)
    both = np.where(rows[..., :1] != 0, (2*shares[..., :2] - 1), 0)
    (tmp_path/"4").mkdir()
    with pytest.raises(ValueError, match="pixels, or shares of the picture from 0 to 1, are allowed"):
        lifted(write(tmp_path/"4", {None: np.concatenate([both, rows[..., 2:]], -1)}), fps=50)

def test_a_focal_length_needs_a_size_from_anywhere(tmp_path):
    path = arrays_json(tmp_path, {None: known()})
    with pytest.raises(ValueError, match="does not say how large the pictures are"): lifted(path, None, focal=1000.)
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(image_size=[640, 480])))
    for size in (None, (640, 480)): assert lifted(path, size, focal=1000.)[0][0]["intrinsics"] == Intrinsics((1000, 1000), (320, 240), (640, 480))

@pytest.mark.parametrize("write", WRITERS)
def test_the_corner_is_nobody_whatever_its_confidence(write, tmp_path):
    "As Ultralytics writes joints below its threshold: x = y = 0, and the confidence is kept."
    rows = known(missing=())
    rows[4, 9], rows[7] = (0, 0, .45), (0, 0, .4)
    wanted = rows*(rows[..., :1] != 0)
    marked = write is coco_annotations
    same(read_keypoint_file(write(tmp_path, {None: rows})),
         clip_of(visible_only(wanted) if marked else wanted, layout="coco", image_size=(640, 480) if marked else None))

def test_the_corner_is_nobody_in_arrays():
    rows = known(missing=())
    rows[4, 9] = 0, 0, .45
    assert clip_of(rows).confidence[4, 9] == 0 and np.isnan(clip_of(rows).keypoints[4, 9]).all()
    pixels, visible, confidence = to_h36m(rows[..., :2], "coco", rows[..., 2])
    assert not visible[4, 13] and confidence[4, 13] == 0 and np.isnan(pixels[4, 13]).all() and visible[5, 13]

NOBODY = [None, [], [None]*51, [0, 0, .4]*17, [float("nan")]*51, [[]], [[0, 0]]*17, [None]*17]

@pytest.mark.parametrize("write", [openpose, by_frame, alphapose, coco_results, mmpose, mmpose_meta, coco_annotations, arrays_json])
@pytest.mark.parametrize("nobody", [*NOBODY, "null"], ids=str)
def test_nobody_is_passed_over(write, nobody, tmp_path):
    "A null in a person's place, and each way to say that there is nothing, in frame 6."
    rows = known(missing=(5,))
    if write is coco_annotations: rows = visible_only(rows)
    path = write(tmp_path, {None: rows})
    wanted = read_keypoint_file(path).keypoints
    wanted[3] = np.nan
    file = sorted(path.glob("*.json"))[3] if path.is_dir() else path
    data = json.loads(file.read_text())
    if write is openpose: at, key = data["people"], 0
    elif write is by_frame: at, key = data["6.jpg"]["people"], 0
    elif write is arrays_json: at, key = data["keypoints"][3], 0
    elif write is coco_annotations: at, key = data["annotations"], 3
    elif write in (alphapose, coco_results): at, key = data, 3
    else: at, key = (data["instance_info"] if write is mmpose_meta else data)[3]["instances"], 0
    if nobody == "null" or write is arrays_json: at[key] = None if nobody == "null" else nobody
    else: at[key].update({"keypoints": nobody} if "keypoints" in at[key] else {"pose_keypoints_2d": nobody})
    file.write_text(json.dumps(data))
    if write is arrays_json and isinstance(nobody, list) and len(nobody) == 51: return              # no shape of this kind
    np.testing.assert_array_equal(read_keypoint_file(path).keypoints, wanted)

@pytest.mark.parametrize("name", [lambda f, n: f"frame{f:05}_person{n}.jpg", lambda f, n: f"video_{f:04}_cam2.json", lambda f, n: f"{1305031102.175304 + f/30 + n/1e5:.6f}.png",
    lambda f, n: f"cam_12-00-{(500 + 40*f)//1000:02}.{(500 + 40*f)%1000:03}.png", lambda f, n: f"{1700000000000 + 40*f + n % 3}.jpg", lambda f, n: f"{n}_{f}", lambda f, n: f"f{f}_{n:x}.jpg"])
def test_the_order_of_time_is_the_file_s(name, tmp_path):
    rows, other = known(F=60, missing=()), np.random.default_rng(0).permutation(300)
    (tmp_path/"a.json").write_text(json.dumps([{"image_id": name(f + 3, other[f]), "keypoints": flat(row)} for f, row in enumerate(rows.tolist()) if f != 20]))
    clip = read_keypoint_file(tmp_path/"a.json")
    rows[20] = 0
    np.testing.assert_array_equal(clip.keypoints, clip_of(rows).keypoints)

# --- damage

def read_or_refuse(path):
    "Reads, or raises one sentence that names the file."
    try:
        people_in(path)
        clip = read_keypoint_file(path)
        assert clip.keypoints.shape[:2] == clip.confidence.shape
        return True
    except (ValueError, FileNotFoundError) as e:
        assert str(path) in str(e) and "\n" not in str(e) and len(str(e)) < 1200, str(e)
        return False

WRONG = [None, True, "", "x", "7", -1, 0, 1.5, 10**5, 10**30, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], {"a": 1}, [1, 2], "image_id"]

def changed(data, rng):
    "A copy with one value, wherever it lies, put in the place of another, taken out, doubled, or another in its key's place."
    data = copy.deepcopy(data)
    at, steps = data, rng.randrange(1, 8)
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys: return data
        key = rng.choice(keys); steps -= 1
        if steps > 0 and isinstance(at[key], (dict, list)) and at[key]: at = at[key]; continue
        how = rng.random()
        if how < .6: at[key] = copy.deepcopy(rng.choice(WRONG))
        elif how < .8: del at[key]
        elif isinstance(at, list): at.insert(key, copy.deepcopy(at[key]))
        else: at[rng.choice(["people", "keypoints", "frames", "fps", "x"])] = at.pop(key)
        return data

@pytest.mark.parametrize("write", [*WRITERS, poseflow, kinetics, ultralytics, landmarks, landmark_lists, videopose, detectron2, marks_by_name, marks_by_number, marks_as_numbers])
def test_damaged_files_are_read_or_refused(write, tmp_path):
    path, rng, n_read = write(tmp_path, known(F=6)) if write in ONE_PERSON else write(tmp_path, {None: known(F=6, missing=(5,)), 3: known(F=6, missing=(), shift=500, seed=1)} if write in WITH_IDS else {None: known(F=6)}), random.Random(0), 0
    file = sorted(path.glob("*.json"))[2] if path.is_dir() else path
    raw = file.read_bytes()
    for cut in [0, 1, 2, 5, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(40))]:
        file.write_bytes(raw[:cut])
        assert not read_or_refuse(path)
    for _ in range(60):                                                         # bytes
        broken = bytearray(raw)
        for _ in range(rng.randrange(1, 4)): broken[rng.randrange(len(raw))] = rng.randrange(256)
        file.write_bytes(broken); read_or_refuse(path)
    if file.suffix == ".json":
        data = json.loads(raw)
        for _ in range(250):                                                    # types and numbers
            broken = data
            for _ in range(rng.randrange(1, 3)): broken = changed(broken, rng) if isinstance(broken, (dict, list)) else broken
            file.write_text(json.dumps(broken)); n_read += read_or_refuse(path)
        assert 10 < n_read < 240

@pytest.mark.parametrize("write", [json_lines, wide, wide_numbers, long, labels, deeplabcut, deeplabcut_people, appended])
def test_damaged_texts_are_read_or_refused(write, tmp_path):
    path, rng = write(tmp_path, known(F=6)), random.Random(0)
    file = sorted(path.glob("*.txt"))[2] if path.is_dir() else path
    raw = file.read_bytes()
    for _ in range(100):
        broken = bytearray(raw[:rng.randrange(len(raw))] if rng.random() < .3 else raw)
        for _ in range(rng.randrange(1, 4)):
            if broken: broken[rng.randrange(len(broken))] = rng.choice(b",;. -x\n\"9")
        file.write_bytes(broken); read_or_refuse(path)

def test_damaged_arrays_are_read_or_refused(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path/"a.npz"
    good = dict(keypoints=np.ones((4, 17, 2)), confidence=np.ones((4, 17)), frames=np.arange(4), image_size=np.array([64, 48]), fps=np.array(25.), layout=np.array("coco"), person=np.array("a"))
    wrong = [np.array(3), np.array("x"), np.ones(0), np.ones((4, 17, 3)), np.ones((4, 2, 17, 2)), np.full((4, 17, 2), np.nan), np.full((4, 17), np.inf), np.array([True]*4), np.array([[1, 2]]*2), np.array(10**15), np.full(4, -1), np.ones((4, 17), complex), np.array(b"x")]
    for _ in range(300):
        np.savez(path, **{k: wrong[rng.integers(len(wrong))] if rng.random() < .2 else v for k, v in good.items() if rng.random() < .95})
        read_or_refuse(path)
    for K in LAYOUTS: assert len(JOINTS[K].split()) == LAYOUTS[K].n_joints

# --- which joints they are

def walker(layout, frames=40):
    "(F, K, 3) of a walker before a camera, in the joints of a layout, as OpenPose and others would write them."
    from diffhpe.datasets import embedded_motion
    from diffhpe.layouts import body_points
    from diffhpe.virtual import random_cameras, recentre
    camera, at = random_cameras(1, 0)[0], body_points(recentre(embedded_motion()[0]["S9"]["Walking 1"])[:9*frames:9])
    pixels = camera.project(camera.world_to_camera(np.stack([at[j] for j in LAYOUTS[layout].joints], 1)))
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), .9)], -1).round(3), camera.resolution

@pytest.mark.parametrize("layout, other", [("body25b", "body25"), ("body25", "body25b"), ("h36m", "coco")])
def test_the_assumed_layout_is_said_and_so_is_what_makes_no_body(layout, other, tmp_path):
    rows, size = walker(layout)
    path = coco_results(tmp_path, {None: rows})
    said = lifted(path, size, None, fps=50)[1]
    K, usual = rows.shape[1], {25: "body25", 17: "coco"}[rows.shape[1]]
    assert f"{path} does not say which joints these are: {K} joints: {usual} assumed" in said
    assert any(f"as {layout!r} they make a body" in s for s in said) == (layout != usual)
    assert lifted(path, size, layout, fps=50)[1] == []
    [asked], said = lifted(path, size, other, fps=50)
    odd = [s for s in said if s.startswith(f"{path}: the joints look odd as those of the layout {other!r}: ")]
    assert len(odd) == 1 and f"; as {layout!r} they make a body" in odd[0]

@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_makes_the_same_limbs(layout):
    limbs = [j for j, name in enumerate(H36M_17.names) if name[0] in "LR"]
    (rows, _), (truth, _) = walker(layout), walker("h36m")
    np.testing.assert_allclose(to_h36m(rows[..., :2], layout)[0][:, limbs], truth[:, limbs, :2], atol=.01)
