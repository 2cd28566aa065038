"What a user of the commands meets when something is in the way: consoles, disks, signals, names out of files."
import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffhpe.command import example_clip, lift_command
from diffhpe.config import Experiment
from diffhpe.keypoint_files import open_keypoint_file, read_keypoint_file
from diffhpe.lifted_files import read_lifted
from diffhpe.viewer import viewer_contents

SIZE = ("--size", "1920x1080", "--layout", "coco", "--fps", "50", "--hypotheses", "1")
START = "import sys; sys.argv[0] = 'diffhpe_lift'; from diffhpe.programs import start_lift; {0}sys.exit(start_lift())"
LIFT = [sys.executable, "-c", START.format("")]
EVIL = {"esc": "a\x1b]0;title\x07\x1b[2J", "nul": "a\x00b", "bidi": "a\u202egnp.exe", "row": "a\r=1+1\n=1+1", "cell": "a;=1+1",
        "quote": '"=1+1', "formula": "=1+1", "tab": "\t=1+1", "half": "\ud800", "wide": "人 ＝1", "math": "$\\frac$", "path": "../../x",
        "long": "x"*5000}

def rows(ids, frames=30):
    "The example's walker, a few steps aside for each id, in AlphaPose's form."
    found = json.loads(example_clip().read_text())["instance_info"][:frames]
    joints = [np.column_stack([r["instances"][0]["keypoints"], r["instances"][0]["keypoint_scores"]]) for r in found]
    return [dict(image_id=f"{f}.jpg", keypoints=(j + (20*n, 0, 0)).ravel().tolist(), score=1., idx=who)
            for f, j in enumerate(joints) for n, who in enumerate(ids)]

def lift(*arguments, cwd, environment=None, **options):
    return subprocess.run([*LIFT, *arguments], cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
                          env=os.environ | dict(PYTHONDONTWRITEBYTECODE="1") | (environment or {}), **options)

def unseen(folder): return [p.name for p in Path(folder).rglob(".*")]

@pytest.fixture
def here(tmp_path):
    "A folder with one person's keypoints."
    (tmp_path/"k.json").write_text(json.dumps(rows([None])))
    return tmp_path

# --- names out of files, on any console

@pytest.mark.parametrize("console", ["ascii", "latin-1", "utf-8"])
def test_any_id_is_lifted_written_and_printed_on_any_console(tmp_path, console):
    (tmp_path/"evil.json").write_text(json.dumps(rows([*EVIL.values(), 1, "1"], 12)))
    kinds = dict(out="o.npz", csv="o.csv", view="o.html", bvh="o.bvh")
    done = lift("evil.json", *SIZE, "--person", "all", *(x for k, v in kinds.items() for x in (f"--{k}", v)), cwd=tmp_path,
                environment=dict(PYTHONIOENCODING=console))
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(console)
    assert all(c.isprintable() or c == "\n" for c in text) and max(map(len, text.splitlines())) < 400
    assert "person a\\x1b]0;title\\x07\\x1b[2J: 12 frames" in text and "person a\\r=1+1\\n=1+1: 12" in text
    assert "person 1: " in text and "person '1': " in text                    # the number 1 and the text "1"
    names = [m.person for m in read_lifted(tmp_path/"o.npz")]
    assert set(EVIL.values()) < set(names) and len(names) == len(EVIL) + 2
    assert [p["name"] for p in viewer_contents((tmp_path/"o.html").read_text(encoding="utf-8"))["people"]] == names
    assert sorted(p.name for p in tmp_path.glob("*.bvh")) == sorted(f"o-{n}.bvh" for n in range(1, len(names) + 1))

    table = (tmp_path/"o.csv").read_bytes()
    lines = table.decode().splitlines()                                       # at every character that ends a line
    assert len(lines) == 1 + 12*17*len(names) == table.count(b"\n")
    assert not any(re.match(r'"?[=+@\t-]', line) for line in lines)
    for divides in ",;\t":
        for row in csv.reader(lines, delimiter=divides): assert not row[0].startswith(("=", "+", "-", "@")) and (divides == "," or len(row) == 1)

@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
def test_names_of_files_that_are_no_text(here):
    "A Latin-1 name, as out of an old archive; also of an output, whose page has it as a title."
    name = os.fsdecode(b"caf\xe9.json")
    (here/"k.json").rename(here/name)
    out = os.fsdecode(b"caf\xe9\x1b.html")
    done = lift(name, *SIZE, "--view", out, "--csv", "a.csv", cwd=here, environment=dict(PYTHONIOENCODING="utf-8"))
    assert (done.returncode, done.stderr) == (0, b"") and (here/out).exists()
    assert b"caf\\udce9\\x1b.html" in done.stdout and b"\x1b" not in done.stdout

@pytest.mark.parametrize("who", ["esc", "long", "half"])
def test_a_wrong_id_is_quoted_safely(tmp_path, who):
    (tmp_path/"k.json").write_text(json.dumps(rows([EVIL[who], "b"])))
    done = lift("k.json", *SIZE, "--person", "x\x1b[2J", cwd=tmp_path, environment=dict(PYTHONIOENCODING="ascii"))
    text = done.stderr.decode("ascii")
    assert done.returncode == 1 and text.count("\n") == 1 and all(c.isprintable() for c in text[:-1])
    assert "nobody with the id x\\x1b[2J" in text and len(text) < 600

# --- outputs

@pytest.mark.parametrize("bad, says", [("k.json/x.npz", "k.json is no folder"), ("/proc/x.npz", ""), ("dead/x.npz", "dead is no folder"),
                                       ("x"*300 + ".npz", "File name too long"), ("fifo.npz", "is no file"), ("ro/x.npz", "Permission denied")])
def test_an_output_that_cannot_be_written_is_told_before_lifting(here, bad, says):
    if bad.startswith("/proc") and not Path("/proc/version").exists() or bad.startswith("ro") and os.geteuid() == 0: pytest.skip("not here")
    (here/"ro").mkdir(mode=0o555); (here/"dead").symlink_to("nothing"); os.mkfifo(here/"fifo.npz")
    before = set(here.rglob("*"))
    done = lift("k.json", *SIZE, "--bvh", "good.bvh", "--out", bad, "--weights", "would/be/missed", cwd=here)
    text = done.stderr.decode()
    assert done.returncode == 1 and text.count("\n") == 1 and text.startswith(bad) and says in text and "would" not in text
    assert set(here.rglob("*")) == before

def test_what_can_be_written_is_written(here):
    "A disk that is full after 30 kB: the table does not fit, the animation does."
    (here/"o.csv").write_text("old")
    def full(): resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    done = lift("k.json", *SIZE, "--out", "o.csv", "--bvh", "b.bvh", cwd=here, preexec_fn=full)
    assert done.returncode == 1 and b"one person: 30 frames" in done.stdout and b"b.bvh" in done.stdout
    assert done.stderr.decode() == "o.csv cannot be written: File too large\n"
    assert sorted(p.name for p in here.iterdir()) == ["b.bvh", "k.json", "o.csv"] and (here/"o.csv").read_text() == "old"

def test_a_training_on_a_full_disk_goes_on_later(tmp_path):
    "The disk is full at 30 kB, which the state of 34 kB does not fit: one sentence with its path; the same call then ends as if nothing had been."
    from safetensors.torch import load_file

    from diffhpe.slices import run_slice
    given = dict(preset="smoke", model="mixste", occ="random", device="cpu")
    program = ("import json, sys; from diffhpe.config import Experiment; from diffhpe.files import as_program; from diffhpe.slices import run_slice\n"
               "with as_program(): run_slice(Experiment(**json.loads(sys.argv[1])), 10)")
    def full(): resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    def tensors(where): return {p.relative_to(where): load_file(p) for p in where.rglob("*.safetensors")}
    undisturbed, disturbed = tmp_path/"a", tmp_path/"b"
    run_slice(Experiment(**given, results_dir=str(undisturbed)), 10)
    done = subprocess.run([sys.executable, "-c", program, json.dumps(given | dict(results_dir=str(disturbed)))], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, preexec_fn=full, timeout=300)
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and told.startswith(str(disturbed)) and told.endswith("training.safetensors cannot be written: File too large")
    assert not list(disturbed.rglob("training.safetensors")) and unseen(disturbed) == [".lock"]
    run_slice(Experiment(**given, results_dir=str(disturbed)), 10)
    a, b = tensors(undisturbed), tensors(disturbed)
    assert len(a) == 3 and a.keys() == b.keys() and all(v.equal(b[k][n]) for k, t in a.items() for n, v in t.items())

def test_outputs_follow_the_umask_and_links(here):
    (here/"real").mkdir(); (here/"o.csv").symlink_to("real/table.csv")
    done = lift("k.json", *SIZE, "--out", "o.npz", "--csv", "o.csv", cwd=here, preexec_fn=lambda: os.umask(0o077))
    assert done.returncode == 0, done.stderr
    assert (here/"o.npz").stat().st_mode & 0o777 == 0o600 == (here/"real/table.csv").stat().st_mode & 0o777
    assert (here/"o.csv").is_symlink()

def test_a_folder_called_dot_has_a_name(tmp_path):
    folder = tmp_path/"openpose_out"; folder.mkdir()
    for f, row in enumerate(rows([None])):
        (folder/f"walk_{f:012}_keypoints.json").write_text(json.dumps(dict(people=[dict(pose_keypoints_2d=row["keypoints"])])))
    done = lift(".", *SIZE, cwd=folder)
    assert done.returncode == 0 and (folder/"openpose_out.npz").exists(), done.stderr
    done = lift(".", *SIZE, "--out", "more.json", cwd=folder)                # would be taken for a frame from then on
    assert done.returncode == 1 and b"would be taken for a frame" in done.stderr and not (folder/"more.json").exists()

# --- signals

def started(*arguments, cwd):
    process = subprocess.Popen([*LIFT[:2], START.format("print('begun', flush=True); "), *arguments], cwd=cwd, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # also where the tests run in the background
    assert process.stdout.readline() == "begun\n"
    return process

@pytest.mark.parametrize("moment", ["while it loads", "while it lifts", "while it writes"])
@pytest.mark.parametrize("number, code, words", [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")])
def test_a_command_that_is_stopped_says_so_and_leaves_nothing(tmp_path, number, code, words, moment):
    found = rows([None], 300)
    for n in range(6 if moment == "while it writes" else 3): found += [r | dict(image_id=f"{300*(n + 1) + f}.jpg") for f, r in enumerate(found[:300])]
    (tmp_path/"k.json").write_text(json.dumps(found))
    process = started("k.json", *SIZE, "--csv", "a.csv", cwd=tmp_path)
    end = time.time() + 120
    if moment == "while it loads": time.sleep(.3)
    elif moment == "while it lifts": time.sleep(4)
    else:
        while not list(tmp_path.glob(".a.csv.*/a.csv")) and process.poll() is None and time.time() < end: time.sleep(.001)
    process.send_signal(number)
    out, wrong = process.communicate(timeout=120)
    assert (process.returncode, wrong, out) == (code, words, "") or process.returncode == 0 and moment == "while it lifts"
    assert not unseen(tmp_path)

def test_what_a_kill_leaves_goes_with_the_next_run(here):
    hung = subprocess.Popen([sys.executable, "-c", "import time; from diffhpe.files import write_atomically\n"
                             "write_atomically('a.csv', lambda p: (print('now', flush=True), time.sleep(600)))"],
                            cwd=here, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    hung.stdout.readline(); hung.kill(); hung.wait()
    assert unseen(here)
    assert lift("k.json", *SIZE, "--csv", "a.csv", cwd=here).returncode == 0 and not unseen(here)

def test_a_reader_that_goes_away_costs_nothing(here):
    process = started("k.json", *SIZE, "--out", "a.npz", cwd=here)
    process.stdout.close()
    assert process.wait(timeout=120) == 141 and process.stderr.read() == "" and (here/"a.npz").exists()

# --- limits, and others' words

@pytest.mark.parametrize("options, says", [(dict(seed=-1), "seed is -1; a whole number from 0 to"), (dict(seed=2**70), "2^63 - 1 is allowed"),
    (dict(hypotheses=10**8), "hypotheses=100000000; at least 1 is needed, and 1,000 are the most"), (dict(device="foo"), "device='foo' is not allowed; 'auto', 'cpu'"),
    (dict(fov=0.), "field of view is 0"), (dict(focal=-3.), "positive numbers are allowed"), (dict(fps=0.), "fps is 0"), (dict(threshold=1.5), "threshold is 1.5"),
    (dict(layout="cocoa"), "there is no layout 'cocoa'"), (dict(sampler="quick"), "unknown sampler 'quick'"), (dict(weights="nowhere"), "nowhere"),
    (dict(size="9"*300), "size is"), (dict(out="walk.keypoints.npz"), "where the film's keypoints are kept"), (dict(film="k.json/a.gif"), "is no folder")])
def test_a_wrong_option_is_told_before_a_film_is_looked_at(here, monkeypatch, options, says):
    monkeypatch.chdir(here); Path("walk.mp4").touch()
    monkeypatch.setattr("diffhpe.command.film_keypoints", lambda *_: pytest.fail("the film was looked at first"))
    with pytest.raises(SystemExit) as e: lift_command.__wrapped__("walk.mp4", **options)
    assert says in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 600

def test_a_damaged_film_is_one_sentence(here):
    pytest.importorskip("cv2", reason="the extra `detect` is not installed")
    (here/"walk.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(500))
    done = lift("walk.mp4", cwd=here)
    assert done.returncode == 1 and done.stderr.decode().strip() == "walk.mp4 holds no picture that can be decoded; a film is allowed, .mp4, .mov, .m4v, .avi, .mkv, .webm, .mpg, .mpeg"

@pytest.mark.parametrize("parameter, value", [("model", "x"*5000), ("preset", [1]*5000), ("seed", "\x1b"*300), ("seed", 10**5000), ("device", "\u202e")], ids=range(5))
def test_a_wrong_value_is_quoted_in_part(parameter, value):
    with pytest.raises(ValueError, match=parameter) as e: Experiment(**{parameter: value})
    assert len(str(e.value)) < 1000 and str(e.value).isprintable()

@pytest.mark.parametrize("contents", ['[{"image_id": "1.jpg", "keypoints": [%s]}]' % ", ".join(["9"*5000]*51), "9"*5000, "1\n" + "9"*5000], ids=range(3))
def test_long_numbers_are_told_in_our_words(here, contents):
    (here/"bigint.json").write_text(contents)
    with pytest.raises(ValueError, match="bigint.json: it has a whole number of more than 4,300 digits") as e: open_keypoint_file(here/"bigint.json")
    assert "int_max" not in str(e.value)

def test_the_name_stands_once(tmp_path):
    np.savez_compressed(tmp_path/"bomb.npz", keypoints=np.zeros((40_000, 1000), np.float32))
    with pytest.raises(ValueError, match="says that it unpacks") as e: open_keypoint_file(tmp_path/"bomb.npz")
    assert str(e.value).count("bomb.npz") == 1

@pytest.mark.parametrize("value", [True, False, "1", "nan"])
@pytest.mark.parametrize("form", ["turns", "lists", "arrays"])
def test_booleans_and_texts_are_no_coordinates(tmp_path, form, value):
    joints = [[100., 200., .9]]*17
    wrong = [*joints[:3], [value, 200., .9], *joints[4:]]
    if form == "arrays": data = dict(keypoints=[[j[:2] for j in joints], [j[:2] for j in wrong]])
    else: data = [dict(image_id=f"{f}.jpg", keypoints=sum(page, []) if form == "turns" else page, score=1.) for f, page in enumerate((joints, wrong))]
    (tmp_path/"k.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="k.json: .*numbers"): read_keypoint_file(tmp_path/"k.json")
