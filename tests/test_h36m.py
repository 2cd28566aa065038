"Motion and keypoints in Human3.6M's layout: files as the community writes them, and files that attack their reader."
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

import diffhpe
from diffhpe.camera import h36m_cameras, normalize_screen
from diffhpe.h36m import keypoints_file, measured_clips, read_keypoints
from diffhpe.motion_files import open_motion, read_motion, write_motion
from diffhpe.people import check_people
from diffhpe.skeleton import H36M_17, H36M_32_TO_17
from diffhpe.synthetic import synthetic_motion

SUBJECTS, LONGER = ("S1", "S5", "S9", "S11"), (0, 3, 1, 5)  # frames that a camera's track has more than the motion
DATA = Path(diffhpe.__file__).parents[2]/"shared/data"


def boxed(obj):
    "The object array of shape () that `np.savez` makes of a dict."
    a = np.empty((), object)
    a[()] = obj
    return a


def each(f, positions):
    return {s: {a: f(c) for a, c in positions[s].items()} for s in positions}


@pytest.fixture(scope="module")
def people():
    "Some actions of some subjects, with clips of different lengths, some 1,300 frames."
    moving = synthetic_motion(repetitions=1, frames=90, subjects=SUBJECTS)
    names = ("Walking", "SittingDown", "Photo", "WalkDog")
    return {s: {f"{n} 1": moving[s][f"{n} 1"][:90 - 7*i] for i, n in enumerate(names)} for s in SUBJECTS}


@pytest.fixture(scope="module")
def community(people, tmp_path_factory):
    "A folder with the 3D file, of 32 joints, and the 2D file of a detector that sees the truth, both by numpy itself."
    folder, rng = tmp_path_factory.mktemp("community"), np.random.default_rng(0)

    def all_joints(clip):
        joints = rng.normal(0, 9, (len(clip), 32, 3)).astype("f4")   # what is not kept must not matter
        joints[:, H36M_32_TO_17] = clip
        return joints

    def tracks(subject, clip):
        longer = np.concatenate([clip] + [clip[-1:]]*max(LONGER))
        return [c.project(c.world_to_camera(longer[:len(clip) + n])).astype("f4")
                for c, n in zip(h36m_cameras(subject), LONGER)]

    symmetry = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]
    seen = {s: {a: tracks(s, c) for a, c in people[s].items()} for s in people}
    np.savez_compressed(folder/"data_3d_h36m.npz", positions_3d=each(all_joints, people))
    np.savez_compressed(folder/"data_2d_h36m_gt.npz", positions_2d=seen,
                        metadata={"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": symmetry})
    noisy = {s: {a: [(t + rng.normal(0, 6, t.shape)).astype("f4") for t in seen[s][a]] for a in seen[s]} for s in seen}
    np.savez_compressed(folder/"data_2d_h36m_cpn_ft_h36m_dbb.npz", positions_2d=noisy,
                        metadata={"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": symmetry})
    return folder


# --- the community's files

def test_the_communitys_files_join(community, people):
    motion = read_motion(community/"data_3d_h36m.npz")
    assert (motion.name, motion.fps, motion.subjects_train,
            motion.subjects_test) == ("h36m", 50, ("S1", "S5"), ("S9", "S11"))
    for s in people:
        for a, c in people[s].items():
            assert np.array_equal(motion.positions[s][a], c) and motion.positions[s][a].dtype == np.float32
    for detector, pixels in ("gt", .01), ("cpn_ft_h36m_dbb", 20):
        keypoints, _ = read_keypoints(keypoints_file(community, detector=detector))
        clips = measured_clips(motion.positions, keypoints)
        assert len(clips) == 4*4*4 and {c.camera for c in clips if c.subject == "S9"} == set(h36m_cameras("S9"))
        for c in clips:
            world = people[c.subject][c.action]
            assert len(c) == len(world)                              # the tracks are longer
            assert np.allclose(c.camera.camera_to_world(c.poses + c.root[:, None]), world, atol=1e-5)
            seen = c.camera.project(c.camera.world_to_camera(world))  # through the distorting lens
            assert np.abs(normalize_screen(seen, c.camera.resolution) - c.keypoints).mean()*500 < pixels


def renamed(path, to, new_core):
    "The same file as the other numpy would have written it: its pickles name numpy.core or numpy._core."
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            raw = old.read(name)
            at = raw.index(b"\n") + 1
            obj = pickle.loads(raw[at:])                             # of this test's own making
            raw = raw[:at] + pickle.dumps(obj, protocol=3).replace(b"numpy._core.",
                                                                   b"numpy.core.").replace(b"numpy.core.", new_core)
            new.writestr(name, raw)
    return to


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_files_of_both_numpys(community, people, tmp_path, core):
    motion = read_motion(renamed(community/"data_3d_h36m.npz", tmp_path/"data_3d_h36m.npz", core))
    keypoints, _ = read_keypoints(renamed(community/"data_2d_h36m_gt.npz", tmp_path/"data_2d_h36m_gt.npz", core))
    assert np.array_equal(motion.positions["S11"]["Photo 1"], people["S11"]["Photo 1"])
    assert [len(t) for t in keypoints["S1"]["Walking 1"]] == [90, 93, 91, 95]


@pytest.mark.parametrize("compress", [True, False])
def test_the_twin_without_pickles(community, people, tmp_path, compress):
    motion = read_motion(community/"data_3d_h36m.npz")
    twin = write_motion(tmp_path/"data_3d_twin.npz", motion.positions,
                        motion.meta | dict(fps="50", subjects_test='["S5"]', licence="none, it is a test"), compress)
    with np.load(twin, allow_pickle=False) as plain:
        assert np.array_equal(plain["S9/WalkDog 1"], people["S9"]["WalkDog 1"])
    whole, lazy = read_motion(twin), open_motion(twin)
    assert whole.meta == lazy.meta and whole.meta["licence"] == "none, it is a test" and lazy.subjects_test == ("S5",)
    assert lazy.n_frames == whole.n_frames == motion.n_frames
    for s in people:
        for a, c in people[s].items():
            assert np.array_equal(lazy.positions[s][a], c) and np.array_equal(whole.positions[s][a], c)
    assert read_motion(write_motion(tmp_path/"data_3d_third.npz", lazy.positions, lazy.meta,
                                    compress)).checksum == whole.checksum
    with pytest.raises(ValueError, match="holds its clips in a pickle, which can only be read whole"):
        open_motion(community/"data_3d_h36m.npz")


def test_opening_does_not_read(people, tmp_path):
    "Bytes of a 40 MB file that a process has read: the kernel counts them."
    walk = np.tile(people["S1"]["Walking 1"], (90, 1, 1))
    path = write_motion(tmp_path/"data_3d_large.npz", {"S1": {f"Walking {i}": walk for i in range(25)}}, compress=False)
    if not Path("/proc/self/io").exists(): pytest.skip("the kernel of this system does not count")
    program = f"""
from diffhpe.motion_files import open_motion
def read(): return int(open("/proc/self/io").read().split()[1])
before = read()
motion = open_motion({str(path)!r})
assert motion.n_frames == {25*len(walk)}
clip = motion.positions["S1"]["Walking 7"]
print(read() - before)
"""
    counted = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 1000 < counted < path.stat().st_size/20, f"{counted:,} of {path.stat().st_size:,} bytes"


def test_bad_pairs_of_files(community, people):
    motion, (keypoints, _) = (read_motion(community/"data_3d_h36m.npz").positions,
                              read_keypoints(community/"data_2d_h36m_gt.npz"))
    def fails(says, keypoints, positions=motion, cameras=h36m_cameras):
        with pytest.raises(ValueError, match=says): measured_clips(positions, keypoints, cameras)
    fails("no subject S11; they have S1, S5, S9", {s: keypoints[s] for s in ("S1", "S5", "S9")})
    fails("no S1/Walking 1; of S1 they have SittingDown 1, Photo 1, WalkDog 1",
          {**keypoints, "S1": {a: t for a, t in keypoints["S1"].items() if a != "Walking 1"}})
    fails("S1/Walking 1 has 4 tracks of keypoints, and 3 cameras saw it", keypoints,
          cameras=lambda s: h36m_cameras(s)[:3])
    fails("S1/Walking 1 has 5 tracks", each(lambda t: t + t[:1], keypoints))
    fails("it fits camera 1, .*, better", each(lambda t: [t[1], t[0], *t[2:]], keypoints))
    fails("it fits better with left and right swapped", each(lambda t: [k[:, H36M_17.mirror] for k in t], keypoints))
    fails("normalised screen coordinates", each(lambda t: [normalize_screen(k, (1000, 1000)) for k in t], keypoints))
    fails("the cameras, the resolution or the recording", each(lambda t: [k*2 for k in t], keypoints))
    with pytest.warns(UserWarning, match="^12 recordings have keypoints and no motion"):
        measured_clips({"S1": motion["S1"]}, keypoints)
    with pytest.warns(UserWarning, match="^64 tracks of keypoints are much longer"):
        measured_clips(each(lambda c: c[:50], motion), keypoints)
    shifted = {s: {a: [k + np.float32([0, 70*(s == "S9") + i*(a == "Photo 1")]) for i, k in enumerate(t)]
                   for a, t in keypoints[s].items()} for s in keypoints}
    with pytest.warns(UserWarning, match="^16 of 64 tracks of keypoints lie further .* S9/Photo 1, "
                                         "camera 3, the furthest: 73 px") as caught:
        measured_clips(motion, shifted)
    assert len(caught) == 1
    with pytest.raises(FileNotFoundError, match="holds those of cpn_ft_h36m_dbb, gt"):
        keypoints_file(community, detector="hrnet")


# --- is it motion?

WRONG = {"millimetres": (lambda c: c*1000, "looks like millimetres"),
         "centimetres": (lambda c: c*100, "looks like centimetres"), "inches": (lambda c: c/.0254, "or inches"),
         "y up": (lambda c: np.stack([c[..., 0], c[..., 2], -c[..., 1]], -1), r"the y axis points up .*\(x, -z, y\)"),
         "y and z exchanged": (lambda c: c[..., [0, 2, 1]], r"the y axis points up .*\(x, z, y\)"),
         "camera's axes": (lambda c: np.stack([c[..., 0], -c[..., 2], c[..., 1]], -1),
                           r"the -y axis points up .*\(x, z, -y\)"),
         "x up": (lambda c: c[..., [2, 0, 1]], r"the x axis points up .*\(y, z, x\)"),
         "x and y exchanged": (lambda c: c[..., [1, 0, 2]], "left and right look swapped"),
         "sides swapped": (lambda c: c[:, H36M_17.mirror], "left and right look swapped"),
         "mirrored": (lambda c: c*[-1, 1, 1], "left and right look swapped")}
REAL = [n for n in ("cmu", "bandai") if (DATA/f"data_3d_{n}.npz").is_file()]


ARMS, LEGS = ([H36M_17.mirror[j] if j in limb else j for j in range(17)] for limb in (range(11, 17), range(1, 7)))
WRONG |= {"arms swapped": (lambda c: c[:, ARMS],
                           "left and right of the arms look swapped .* shoulders and hips point to opposite sides"),
          "legs swapped": (lambda c: c[:, LEGS], "left and right of the legs look swapped"),
          "arms swapped, y up": (lambda c: c[:, ARMS][..., [1, 2, 0]], "left and right of the arms look swapped"),
          "nothing but zeros": (lambda c: c*0, "head and feet are at one place")}


@pytest.fixture(scope="module", params=["embedded", *REAL])
def good(request):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if request.param != "embedded": return read_motion(DATA/f"data_3d_{request.param}.npz").positions
        return synthetic_motion(repetitions=1, frames=60)


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_units_axes_and_sides(good, fault):
    change, says = WRONG[fault]
    assert check_people(good) == []
    with pytest.raises(ValueError, match=says): check_people(each(change, good))


def test_one_sentence_about_a_file(people, tmp_path):
    path = tmp_path/"data_3d_odd.npz"
    for change, says in WRONG.values():
        np.savez(path, positions_3d=boxed(each(change, people)))
        with pytest.raises(ValueError, match=f"data_3d_odd.npz: .*{says}") as error: read_motion(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
        read_motion(path, check=False)                               # on request
        with pytest.raises(ValueError, match=says): write_motion(tmp_path/"data_3d_copy.npz", each(change, people))
    assert not (tmp_path/"data_3d_copy.npz").exists()


@pytest.mark.parametrize("change, says", [(lambda c: c*12, "head and feet are 1.*0.5 to 3 metres are usual"),
                                          (lambda c: c/9, "0.5 to 3 metres are usual"),
                                          (lambda c: c*[1, -1, -1], "the head is below the feet"),
                                          (lambda c: c*[1, 1, -1], "below the feet.* mirrored")])
def test_suspicious_motion_warns(people, tmp_path, change, says):
    np.savez(tmp_path/"data_3d_odd.npz", positions_3d=boxed(each(change, people)))
    with pytest.warns(UserWarning, match=says) as caught: read_motion(tmp_path/"data_3d_odd.npz")
    assert len(caught) == 1


@pytest.mark.parametrize("change, says", [(lambda c: c[..., [1, 2, 0]], r"the y axis points up in 4 of 4 clips of S9 "
                                                                        r"\(S9/Walking 1 among them\), where z should"),
                                          (lambda c: c[:, ARMS], "in 4 of 16 clips, S9/Walking 1 among them, "
                                                                 "shoulders and hips point to opposite sides")])
def test_a_single_subject_that_differs(people, tmp_path, change, says):
    np.savez(tmp_path/"data_3d_odd.npz",
             positions_3d=boxed({**people, "S9": {a: change(c) for a, c in people["S9"].items()}}))
    with pytest.warns(UserWarning, match=f"data_3d_odd.npz: {says}") as caught: read_motion(tmp_path/"data_3d_odd.npz")
    assert len(caught) == 1


def test_a_person_may_lie(people):
    lies = people["S9"]["Walking 1"][..., [1, 2, 0]]
    assert check_people({**people, "S9": {**people["S9"], "Lying": lies}}) == []


def test_who_is_listed_and_not_there(people, tmp_path):
    path, meta = tmp_path/"data_3d_mine.npz", dict(subjects_train=["S1", "S05"], subjects_test=["S9"])
    for read, write in ((read_motion, lambda: np.savez(path, positions_3d=boxed(people), **meta)),
                        (open_motion, lambda: write_motion(path, people, meta))):
        write()
        with pytest.warns(UserWarning, match="data_3d_mine.npz: .* list 'S05', of whom it has no clip; "
                                             "it has S1, S5, S9, S11") as caught:
            motion = read(path)
        assert (motion.subjects_train, motion.subjects_test, len(caught)) == (("S1",), ("S9",), 1)
    np.savez(path, positions_3d=boxed({"S1": people["S1"], "S9": people["S9"]}),
             subjects_train=json.dumps([["\x1b[2J"], "\x1b[2J"*100, "S1"]))
    with pytest.warns(UserWarning) as caught: read_motion(path)
    assert len(caught) == 1 and str(caught[0].message).isprintable() and len(str(caught[0].message)) < 600


def test_the_custom_outlives_a_subject_of_ones_own(people, tmp_path):
    path = tmp_path/"data_3d_mine.npz"
    def split(*names):
        np.savez(path, positions_3d=boxed({n: people["S1"] for n in names}))
        motion = read_motion(path)
        return motion.subjects_train, motion.subjects_test
    assert split("S1", "S5", "S9", "S2") == (("S1", "S5"), ("S9",))
    assert split("S9", "Ann") == split("S1", "S2") == split("Ann") == ((), ())


def test_sentences_about_what_is_no_array(people, tmp_path):
    clip, path = people["S1"]["Walking 1"], tmp_path/"data_3d_odd.npz"
    for odd, says in ((list(clip), "S1/Walking 1 is of type list and no array; floats of shape"),
                      (clip.astype(int), "shape .90, 17, 3. and dtype int64; floats")):
        np.savez(path, positions_3d=boxed({"S1": {"Walking 1": odd}}))
        with pytest.raises(ValueError, match=says): read_motion(path)
        with pytest.raises(ValueError, match=says): write_motion(path, {"S1": {"Walking 1": odd}})
    unequal, path = np.empty(4, object), tmp_path/"data_2d_odd.npz"
    for i in range(4): unequal[i] = np.zeros((5 + i, 17, 2), "f4")
    np.savez(path, positions_2d=boxed({"S1": {"Walking 1": unequal}}))
    with pytest.raises(ValueError, match="several objects; .* arrays of unequal length in a list"): read_keypoints(path)
    np.savez(path, positions_2d=boxed({"S1": {"Walking 1": list(unequal)}}))
    assert [len(t) for t in read_keypoints(path)[0]["S1"]["Walking 1"]] == [5, 6, 7, 8]


# --- attacks

class Call:
    "Pickled, it is a call of the function."
    def __init__(self, function, *args): self.call = function, args
    def __reduce__(self): return self.call


def layouts(payload, folder):
    "A pickle in place of the dict, a clip, metadata; as 3D, 2D and pickle-free file; with the function that opens it."
    header = io.BytesIO()
    npy.write_array_header_1_0(header, dict(descr="|O", fortran_order=False, shape=()))
    for k, (key, beside, read) in enumerate([("positions_3d", {}, read_motion), ("positions_2d", {}, read_keypoints),
                                             ("meta/fps", {"S1/Walking 1": np.zeros((2, 17, 3), "f4")}, open_motion),
                                             ("S1/Walking 1", {},
                                              lambda p: open_motion(p).positions["S1"]["Walking 1"]),
                                             ("notes", {"positions_3d": {}}, read_motion)]):
        path = folder/f"data_{3 - (k == 1)}d_attack{k}.npz"
        np.savez(path, **beside)
        with zipfile.ZipFile(path, "a") as z: z.writestr(f"{key}.npy", header.getvalue() + payload)
        yield path, read


def refused(path, read, limit=5e7):
    "The one sentence that a file is refused with, in little memory."
    if limit: tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error: read(path)
        assert not limit or tracemalloc.get_traced_memory()[1] < limit
    finally: tracemalloc.stop()
    assert "\n" not in str(error.value) and len(str(error.value)) < 800 and path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.exec", "getattr", "numpy.load",
                                  "pickle.loads", "subprocess", "numpy.frombuffer", "numpy.ndarray.tofile"])
def test_nothing_is_called(tmp_path, name, protocol):
    sentinel = tmp_path/"was_run"
    touch = f"open({str(sentinel)!r}, 'w').close()"
    np.save(tmp_path/"other.npy", boxed(Call(eval, touch)))
    call = {"os.system": Call(os.system, f"touch {sentinel}"), "builtins.eval": Call(eval, touch),
            "builtins.exec": Call(exec, touch), "getattr": Call(getattr, "", "upper"),
            "numpy.load": Call(np.load, str(tmp_path/"other.npy"), None, True),
            "pickle.loads": Call(pickle.loads, pickle.dumps(Call(eval, touch))),
            "subprocess": Call(subprocess.call, ["touch", str(sentinel)]),
            "numpy.frombuffer": Call(np.frombuffer, b"1234"),
            "numpy.ndarray.tofile": Call(np.ndarray.tofile, np.zeros(3), str(sentinel))}[name]
    for place in ({"S1": {"Walking 1": call}}, boxed({"S1": call}), [call],
                  {"S1": {"Walking 1": [np.zeros((2, 17, 3), "f4"), call]}}):
        for path, read in layouts(pickle.dumps(place, protocol), tmp_path):
            said = refused(path, read)
            # the third does not even look into the pickle
            assert ("dtype object" if path.stem.endswith("3") else "asks for the global") in said
            assert not sentinel.exists()
    if name == "os.system":  # the sentinel can be written: numpy's own reader would have
        pickle.loads(pickle.dumps(call))
        assert sentinel.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"       # an empty array, protocol 0
def number(n, size): return n.to_bytes(size, "little")
def state(shape, dtype=b"cnumpy\ndtype\n(Vf4\nI0\nI1\ntR", raw=b"C\x08" + bytes(8)):
    return ARRAY + b"(I1\n" + shape + dtype + b"I0\n" + raw + b"tb."


PICKLES = {
    "a class's attributes": b"cnumpy\nndarray\n(N(V__init__\nNdtb.",
    "a dtype's attributes": b"cnumpy\ndtype\n(Vf4\ntR(N(Vdtype\nNdtb.",
    "a stand-in called with a size": b"cnumpy\nndarray\n((I1000000000000\nttR.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "INST": b"(ios\nsystem\n.",
    "OBJ": b"(cnumpy\nndarray\no.", "NEWOBJ": b"cnumpy\nndarray\n)\x81.", "NEWOBJ_EX": b"cnumpy\nndarray\n)}\x92.",
    "the extension registry": b"\x82\x01.", "EXT2": b"\x83\x01\x01.", "EXT4": b"\x84\xff\xff\xff\x7f.",
    "a persistent id": b"Pos.system\n.", "a binary persistent id": b"K\x01Q.", "a buffer from outside": b"\x97.",
    "the memo's largest number": b"Nr\xff\xff\xff\xff.", "a negative number": b"Np-1\n.",
    "an object that was not numbered": b"h\x07.", "below the stack": b"00.", "below a mark": b"N(0.", "no mark": b"Nt.",
    "nothing": b".", "no end": b"N", "no bytes": b"", "100 GB of bytes": b"\x8e" + number(10**11, 8) + b"x.",
    "2 GB of bytes": b"B" + number(2**31 - 1, 4) + b"x.", "a negative length": b"T" + number(2**32 - 1, 4) + b"x.",
    "a frame of 2^63 bytes": b"\x80\x04\x95" + number(2**63, 8) + b"N.",
    "a long of 2 GB": b"\x8b" + number(2**31 - 1, 4) + b"x.",
    "a number of a million digits": b"L" + b"9"*10**6 + b"L\n.", "100 GB declared": state(b"(L1000000000L\nI25\nt"),
    "a shape that overflows": state(b"(L4294967296L\nL4294967296L\nt"), "negative lengths": state(b"(I-1\nI-2\nt"),
    "a shape of numbers of 2,000 bits": state(b"(" + b"\x8a\xfa" + b"\xff"*249 + b"\x7f" + b"t"),
    "a shape of text": state(b"(Vx\nt"), "pointers": state(b"(I1\nt", b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR"),
    "a void dtype": state(b"(I1\nt", b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR"),
    "a dtype by a string of several": state(b"(I1\nt", b"cnumpy\ndtype\n(Vf4,O\nI0\nI1\ntR"),
    "a dtype that is none": state(b"(I1\nt", b"N"), "a state that is none": ARRAY + b"Nb.",
    "an array as a key": b"}" + ARRAY + b"Ns.", "a number as a key": b"}I1\nNs.",
    "a tuple as a key, 300,000 deep": b"})" + b"\x85"*300_000 + b"Ns.",
    "such a key, SETITEMS": b"}(" + b")" + b"\x85"*300_000 + b"Nu.",
    "such a key, DICT": b"()" + b"\x85"*300_000 + b"Nd.",
    "a function's methods": b"c_codecs\nencode\n(N(V__new__\nNdtb.",
    "a scalar's methods": b"cnumpy.core.multiarray\nscalar\n(N(V__new__\nNdtb.", "no such instruction": b"\xff.",
    "text as a state": b"cnumpy\ndtype\n(Vf4\ntRVsome text\nb.",
    "a list 300,000 deep": b"]"*300_000 + b"a"*299_999 + b".",
    "a class as a value": b"}Vx\ncnumpy\nndarray\ns.",
    "bytes by a codec": b"c_codecs\nencode\n(Vx\nVzlib\ntR.",
    "a million instructions": b"N0"*500_001 + b"N.", "a list of itself": b"]q\x00h\x00a.",
    "laughter": pickle.dumps([[["ha"*1000]*100]*1000]*1)[:-1] + b"q\x7f0](" + b"h\x7f"*50_000 + b"e.",
}


@pytest.mark.parametrize("attack", PICKLES)
def test_nothing_strange_is_built(tmp_path, attack):
    limit = 5e7 if len(PICKLES[attack]) < 200_000 else 0             # tracing is slow
    for path, read in list(layouts(PICKLES[attack], tmp_path))[:None if limit else 1]: refused(path, read, limit)


def test_text_as_a_shape_is_not_written_out(tmp_path):
    "As text, 2^100 parentheses."
    for path, read in layouts(state(b")q\x00" + b"0h\x00h\x00\x86q\x00"*100), tmp_path): refused(path, read)


def write_raw(path, mode=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", mode) as z:
        for key, raw in members.items(): z.writestr(f"{key}.npy", raw)
    return path


def member(array_bytes, descr, shape, version=1):
    f = io.BytesIO()
    (npy.write_array_header_1_0 if version == 1
     else npy.write_array_header_2_0)(f, dict(descr=descr, fortran_order=False, shape=shape))
    return f.getvalue() + array_bytes


def forged(path, signature, at, value, size=4):
    "Overwrite bytes behind the last such signature."
    raw = bytearray(path.read_bytes())
    start = raw.rindex(signature) + at
    raw[start:start + size] = number(value, size)
    path.write_bytes(raw)
    return path


def readers(path):
    "The three ways to a clip."
    return [(path, read_motion), (path, read_keypoints), (path, lambda p: open_motion(p).positions["S1"]["x"])]


CLIP = np.zeros((4, 17, 3), "<f4")
ZEROS = member(bytes(200_000_000), "|u1", (200_000_000,))
CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
def flat(folder, raw=member(CLIP.tobytes(), "<f4", CLIP.shape), mode=zipfile.ZIP_STORED):
    return write_raw(folder/"data_3d_attack.npz", mode, **{"S1/x": raw})


ARCHIVES = {
    "an honest bomb": lambda d: flat(d, ZEROS, zipfile.ZIP_DEFLATED),
    "a bomb that says 1 kB": lambda d: forged(flat(d, ZEROS, zipfile.ZIP_DEFLATED), CENTRAL, 24, 1000),
    "a bomb that says 4 GB": lambda d: forged(flat(d, ZEROS, zipfile.ZIP_DEFLATED), CENTRAL, 24, 2**32 - 2),
    "a bomb in the pickle": lambda d: write_raw(d/"data_3d_attack.npz",
                                                positions_3d=member(pickle.dumps(bytes(200_000_000)), "|O", ())),
    "100 GB declared": lambda d: flat(d, member(b"1234", "<f4", (10**9, 25))),
    "negative lengths": lambda d: flat(d, member(bytes(408), "<f4", (-2, 17, -3))),
    "an overflowing shape": lambda d: flat(d, member(b"", "<f4", (2**32, 2**32))),
    "objects": lambda d: flat(d, member(bytes(816), "|O", (2, 17, 3))),
    "pointers as a record": lambda d: flat(d, member(bytes(8), [("x", "|O")], (1,))),
    "a void dtype": lambda d: flat(d, member(bytes(408), "|V4", (2, 17, 3))),
    "a header of nested brackets": lambda d: flat(d,
                                                  b"\x93NUMPY\2\0" + number(18_001, 4) + b"("*9000 + b")"*9000 + b"\n"),
    "a header of minus signs": lambda d: flat(d, b"\x93NUMPY\2\0" + number(9000, 4) + b"-"*8999 + b"\n"),
    "a header that calls":
        lambda d: flat(d, b"\x93NUMPY\1\0" + number(70, 2)
                       + b"{'descr': __import__('os').getcwd(), 'fortran_order': 0, 'shape': ()}".ljust(69) + b"\n"),
    "a header of 4 GB": lambda d: flat(d, b"\x93NUMPY\2\0" + number(2**32 - 1, 4) + b"x"*100),
    "the format's version 3": lambda d: flat(d, b"\x93NUMPY\3\0" + number(9, 4)), "no .npy": lambda d: flat(d, b"text"),
    "empty": lambda d: flat(d, b""), "no frames": lambda d: flat(d, member(b"", "<f4", (0, 17, 3))),
    "one frame more than there is": lambda d: flat(d, member(CLIP.tobytes(), "<f4", (5, 17, 3))),
    "one frame less": lambda d: flat(d, member(CLIP.tobytes(), "<f4", (3, 17, 3))),
    "bytes behind the file's end": lambda d: forged(forged(flat(d), CENTRAL, 20, 10**6), CENTRAL, 24, 10**6),
    "a place behind the file's end": lambda d: forged(flat(d), CENTRAL, 42, 10**6),
    "a name of another length": lambda d: forged(flat(d), LOCAL, 26, 4, 2),
    "packed and unpacked sizes that differ": lambda d: forged(flat(d), CENTRAL, 20, 10),
    "encryption": lambda d: forged(flat(d), CENTRAL, 8, 1, 2),
    "another method": lambda d: forged(flat(d), CENTRAL, 10, 12, 2),
    "a directory of 2 GB": lambda d: forged(flat(d), END, 12, 2**31),
    "a directory elsewhere": lambda d: forged(flat(d), END, 16, 2**31),
    "a comment": lambda d: forged(flat(d), END, 20, 1, 2),
}


@pytest.mark.parametrize("attack", ARCHIVES)
def test_lying_archives(tmp_path, attack):
    for path, read in readers(ARCHIVES[attack](tmp_path)): refused(path, read)


def test_truncated_and_changed_files(community, tmp_path):
    for source, read in (community/"data_3d_h36m.npz", read_motion), (community/"data_2d_h36m_gt.npz", read_keypoints):
        whole, path = source.read_bytes(), tmp_path/source.name
        for n in [0, 1, 21, 22, 97, 98, *np.linspace(100, len(whole) - 1, 20).astype(int)]:
            path.write_bytes(whole[:n])
            assert "is not a whole .npz file" in refused(path, read)
        rng, wrong = np.random.default_rng(0), 0
        for _ in range(60):                                          # one byte changed: refused, or it did not matter
            raw = bytearray(whole)
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
            path.write_bytes(raw)
            try: read(path)
            except ValueError as e: wrong += path.name in str(e)
        assert wrong > 50


def test_pickles_of_random_bytes(tmp_path):
    "Mutations of a good pickle: each is read or refused in a sentence, and nothing else happens."
    rng, good = (np.random.default_rng(1),
                 pickle.dumps({"S1": {"Walking 1": np.zeros((2, 17, 3), "f4"), "n": [1, "a", None, 2.5]}}, 2))
    path, read = next(iter(layouts(good, tmp_path)))
    for _ in range(400):
        raw = bytearray(good)
        for _ in range(rng.integers(1, 4)): raw[rng.integers(len(raw))] = rng.integers(256)
        path, read = next(iter(layouts(bytes(raw), tmp_path)))
        with pytest.raises(ValueError): read(path)                   # n is no clip in any case


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "a\\b", "a\0b", "\x1b[2Jclear", "", "x"*1000, "a/../b"])
def test_names_that_lead_elsewhere(people, tmp_path, name):
    clip = people["S1"]["Walking 1"]
    for key, contents in (("3d", {name: {"Walking 1": clip}}), ("3d", {"S1": {name: clip}}),
                          ("2d", {"S1": {name: [clip[..., :2]]}})):
        path = tmp_path/f"data_{key}_attack.npz"
        np.savez(path, **{f"positions_{key}": boxed(contents)})
        said = refused(path, read_motion if key == "3d" else read_keypoints)
        assert "is named" in said and said.isprintable()
        if key == "3d":
            with pytest.raises(ValueError, match="is named"): write_motion(tmp_path/"data_3d_copy.npz", contents)
    assert {p.name for p in tmp_path.iterdir()} <= {"data_3d_attack.npz", "data_2d_attack.npz"}


def test_metadata_that_grows_when_written_out(people, tmp_path):
    clips = {"S1": {"Walking 1": people["S1"]["Walking 1"]}}
    for much in np.zeros(3_000_000, "u1"), boxed([["x"*1000]*100]*100), np.array("x"*2**21):
        np.savez_compressed(tmp_path/"data_3d_attack.npz", positions_3d=boxed(clips), note=much)
        assert ("the metadata 'note' is longer "
                "than 1,048,576 characters" in refused(tmp_path/"data_3d_attack.npz", read_motion))
    for meta in (dict(fps=-1), dict(fps="1e999"), dict(subjects_train="["*10**5), dict(subjects_test='{"S1": 1}'),
                 dict(parents=list(range(17)))):
        np.savez(tmp_path/"data_3d_attack.npz", positions_3d=boxed(clips), **meta)
        refused(tmp_path/"data_3d_attack.npz", read_motion)


@pytest.mark.parametrize("fps", [1e-6, "1e-300", 4.9, 1001, 1e308, "inf", "nan", 0, -50])
def test_a_rate_that_would_fill_the_memory(people, tmp_path, fps):
    "Brought to 50 frames per second, a clip at a rate of 0.000001 would have fifty million times its frames."
    clips, path = {"S1": {"Walking 1": people["S1"]["Walking 1"]}}, tmp_path/"data_3d_attack.npz"
    for contents in ({"positions_3d": boxed(clips), "fps": fps},
                     {"S1/Walking 1": clips["S1"]["Walking 1"], "meta/fps": fps}):
        np.savez(path, **contents)
        assert "a number from 5 to 1000 is allowed" in refused(path, read_motion)
    assert "a number from 5 to 1000 is allowed" in refused(path, open_motion)
    with pytest.raises(ValueError, match="a number from 5 to 1000 is allowed"):
        write_motion(tmp_path/"data_3d_copy.npz", clips, dict(fps=fps))
    assert not (tmp_path/"data_3d_copy.npz").exists()


def test_the_same_key_twice(people, tmp_path):
    path, raw = tmp_path/"data_3d_attack.npz", member(CLIP.tobytes(), "<f4", CLIP.shape)
    for names in ("S1/x.npy", "S1/x.npy"), ("S1/x.npy", "S1/x"):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as z:
            warnings.simplefilter("ignore")
            for name in names: z.writestr(name, raw)
        for path, read in readers(path): assert "is there twice; once is allowed" in refused(path, read)
    np.savez(path, positions_3d=boxed({"S1": {"x": people["S1"]["Walking 1"]}}), **{"S1/x": people["S9"]["Walking 1"]})
    assert "the key 'S1/x' is unknown" in refused(path, read_motion)
