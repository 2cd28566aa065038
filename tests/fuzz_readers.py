"""Mutated inputs for the readers of what is not trusted: each is read, or refused in one sentence that begins with the
path (or the option). By hand, 10^5 for each reader take about an hour on two cores:

    python tests/fuzz_readers.py --tries 100000 [--seed 0] [--readers config,grid]

tests/test_readers.py does some hundred."""
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from argparse import ArgumentParser
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

SECONDS, BYTES, CHARACTERS = 5, 2**30, 2000
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where writing a file costs next to nothing

# --- what is mutated: a name → (an input that is right, where it is written, a function that reads the file)

def small_model():
    from diffhpe.models import DiffHPE
    torch.manual_seed(0)
    return DiffHPE("2d", n_frames=9, channels=8, n_blocks=1, residual=True, linear_start=True)


def weights_folder(folder):
    from diffhpe.checkpoints import model_config, save_checkpoint
    save_checkpoint(model := small_model(), folder/"weights")
    return model_config(model)


def config(folder):
    from diffhpe.checkpoints import load_checkpoint
    return weights_folder(folder), "weights/config.json", lambda p: load_checkpoint(p.parent)


def calibration(folder):
    from diffhpe.uncertainty import LEVELS, Calibration, load_calibration
    right = asdict(Calibration(LEVELS, tuple(((.01,)*3,)*17), (((1.,)*17, (2.,)*17), ((3.,)*17, (4.,)*17)), "me"))
    return right, "calibration.json", load_calibration


def table(folder):
    from diffhpe.import_bvh import read_table
    from diffhpe.joint_tables import JOINT_TABLES
    return JOINT_TABLES["cmu"], "mine.json", read_table


def summary():
    from diffhpe.config import Experiment
    from diffhpe.evaluation import METRICS
    row, given = dict.fromkeys(METRICS, 54.8), asdict(Experiment(occ="random"))
    return dict(run="a", experiment=given, finished=True, wall_time=3., environment=dict(device="CPU", torch="2"),
                data=dict(name="synthetic", description="embedded", checksum="1a2b", train_clips=3, test_clips=2,
                          visible=.9),
                metrics=dict(random={"mean pose": row, "ridge regression": row, "mixste": row}),
                training=dict(mixste=dict(name="a-mixste", epochs=2, steps=9, seconds=1.2, finished=True,
                                          best_valid_mpjpe=60., parameters=99)))


def metrics(folder):
    from diffhpe.results import collect_runs, read_summary
    from diffhpe.summary import cells_of
    def read(path):
        "The reader itself; and a table over the folder, which may warn, but goes on."
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if runs := collect_runs(path.parent.parent): cells_of(runs)
        read_summary(path)
    return summary(), "runs/a/metrics.json", read


def finished(folder):
    from diffhpe.config import Experiment
    from diffhpe.grid import is_finished
    from diffhpe.results import run_folder
    e = Experiment(preset="smoke", results_dir=str(folder/"results"))
    return summary(), f"results/{run_folder(e).name}/metrics.json", lambda p: is_finished(e)


def trial(folder):
    from diffhpe.plain import read_json
    from diffhpe.tuning import TRIAL
    right = dict(mpjpe=60.5, data="1a2b", environment=dict(device="CPU"), epochs=3, seconds=4.5, training="a", reason=None)
    return right, "trial.json", lambda p: read_json(p, TRIAL)


def training(folder, model):
    "A state, and what reads one: its progress, its path, a function of a path."
    from diffhpe.config import FitConfig
    from diffhpe.optimisation import load_schedule, make_optimiser, make_schedule
    from diffhpe.training import Progress, load_state, save_state
    config = FitConfig(1e-3, 8, 3, .1)
    optimiser, description = make_optimiser(model, config), dict(seed=0)
    schedule = make_schedule(optimiser, config)
    row = dict(epoch=1, step=3, learning_rate=1e-3, train_loss=.5, valid_loss=.4, valid_mpjpe=None, seconds=3.)
    progress = Progress(epoch=1, batch=1, step=4, learning_rate=1e-3, history=[row], schedule=schedule.state_dict())
    save_state(folder/"right.safetensors", model, optimiser, progress, description)
    def read(path):
        found = load_state(path, model, optimiser, description)
        found.fits(path, 3)
        if found.schedule: load_schedule(path, schedule, found.schedule)
    return progress, folder/"right.safetensors", read


def with_checksum(data):
    "A safetensors file whose checksum is right, if it has one."
    at = data.find(b'"checksum":"') + 12
    if at < 12 or at + 8 > len(data): return data
    digits = f"{zlib.crc32(data[:at] + b'0'*8 + data[at + 8:]):08x}".encode()
    return data[:at] + digits + data[at + 8:]


def history(folder):
    "The progress in the header of a state, whose checksum is right."
    progress, right, read = training(folder, torch.nn.Linear(2, 2))   # its tensors are not what is mutated
    whole = right.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, tensors = json.loads(whole[8:8 + size]), whole[8 + size:]
    def read_text(path):
        header["__metadata__"]["progress"] = path.read_bytes().decode("utf-8", "surrogateescape")
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
        text += b" "*(-len(text) % 8)
        path.write_bytes(with_checksum(len(text).to_bytes(8, "little") + text + tensors))
        read(path)
    return asdict(progress), "state.safetensors", read_text


def state(folder):
    _, right, read = training(folder, small_model())
    return right.read_bytes(), "state.safetensors", read


def weights(folder):
    from diffhpe.checkpoints import load_checkpoint
    weights_folder(folder)
    file = "weights/model.safetensors"
    return (folder/file).read_bytes(), file, lambda p: load_checkpoint(p.parent)


RELEASED = (("^embed", "Spatial_patch_to_embedding"), ("(spatial|temporal)_position", r"\1_pos_embed"),
            ("spatial_(norm|pos)", r"Spatial_\1"), ("temporal_(norm|pos)", r"Temporal_\1"),
            ("spatial_blocks", "STEblocks"), ("temporal_blocks", "TTEblocks"), ("attention", "attn"),
            (r"mlp\.0", "mlp.fc1"), (r"mlp\.2", "mlp.fc2"), (r"^head\.", "head.1."), ("^head_norm", "head.0"))


def released(folder):
    "A MixSTE by the names of its release."
    from diffhpe.mixste import MixSTE
    from diffhpe.released import load_released
    weights = {}
    for name, value in MixSTE(n_frames=9, channels=8, depth=1, n_heads=8).state_dict().items():
        for ours, theirs in RELEASED: name = re.sub(ours, theirs, name)
        weights[f"module.{name}"] = value
    torch.save(dict(epoch=3, model_pos=weights), folder/"right.bin")
    return (folder/"right.bin").read_bytes(), "epoch.bin", lambda p: load_released(p, tell=None)


def notebook(folder):
    from diffhpe.grid import notebook_error
    error = dict(output_type="error", ename="ValueError", evalue="no", traceback=["a"])
    right = dict(cells=[dict(cell_type="code", source=["1/0"], outputs=[error]), dict(cell_type="markdown", source="a")],
                 metadata={}, nbformat=4)
    return right, "run.ipynb", notebook_error


GRID = """
scales: {tiny: {preset: smoke, epochs: {mixste: 6}}, full: {preset: paper, learning_rate: 1e-3}}
published: {scales: [full, tiny], sections: [two]}
sections:
  one:
    - {occ: [none, random], seed: [0, 1], test_occ: &all [none, random], channels: "mixste=32"}
  two: [{occ: random, seed: 1, test_occ: *all}, {occ: none, model: mixste, noise: 0.5, curriculum: true}]
"""


def grid(folder):
    from diffhpe.grid import published_runs, read_grid
    def read(path): read_grid(path); read_grid(path, hypotheses=1); published_runs(path)
    return GRID, "grid.yaml", read


def pairs(folder):
    from diffhpe.config import Experiment, parameter_names
    from diffhpe.grid import checked_pairs
    def read(path):
        try: lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
        except UnicodeDecodeError: return
        try: Experiment(**checked_pairs([line.partition(" ")[::2] for line in lines if line.strip()], parameter_names()))
        except ValueError as e: raise ValueError(f"{path}: {e}") from e
    return "seed 3\nlearning_rate 1e-3\nocc none\nresume false\nepochs mixste=2\ntest_occ [none, random]", "pairs", read


def parameters(folder):
    "Those that papermill has read for the notebook: a mapping, or a text that is the value of one."
    from diffhpe.config import Experiment, read_parameters
    from diffhpe.results import run_id
    def read(path):
        try: given = json.loads(text := path.read_bytes().decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError): given = dict(occ="none", channels=text, n_steps=text, epochs=text)
        if not isinstance(given, dict): given = dict(occ="none", test_occ=given)
        try: run_id(read_parameters(given))
        except ValueError as e: raise ValueError(f"{path}: {e}") from e
    return asdict(Experiment(occ="random", epochs=dict(mixste=2))), "parameters", read


def clip(n_frames=3):
    from diffhpe.synthetic import synthetic_motion
    return synthetic_motion(frames=n_frames, repetitions=1, subjects=("S1",))


def people(n_frames=3):
    "Joints of a standing person in pixels with confidences, (F, 17, 3)."
    from diffhpe.command import example_clip
    rows = json.loads(example_clip().read_text())["instance_info"][:n_frames]
    return np.array([np.column_stack([r["instances"][0]["keypoints"], r["instances"][0]["keypoint_scores"]]) for r in rows])


def keypoints(folder):
    from diffhpe.keypoint_files import read_keypoint_file
    rows = [dict(image_id=f"{f}.jpg", keypoints=page.ravel().round(1).tolist(), score=1., idx=1)
            for f, page in enumerate(people())]
    return rows, "k.json", read_keypoint_file


def tables(folder):
    "Keypoints as DeepLabCut's CSV."
    from diffhpe.keypoint_files import read_keypoint_file
    parts = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", *(f"{side}_{part}" for part in (
        "shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right"))]
    head = [["scorer", *["DLC"]*51], ["bodyparts", *(p for p in parts for _ in "xyz")],
            ["coords", *["x", "y", "likelihood"]*17]]
    rows = [[str(f), *(f"{v:.1f}" for v in page.ravel())] for f, page in enumerate(people())]
    return "\n".join(map(",".join, head + rows)), "k.csv", read_keypoint_file


def arrays(folder):
    from diffhpe.keypoint_files import read_keypoint_file
    np.savez(folder/"right.npz", keypoints=people()[..., :2], confidence=people()[..., 2], fps=50., layout="coco")
    return (folder/"right.npz").read_bytes(), "k.npz", read_keypoint_file


def motion(folder):
    from diffhpe.motion_files import open_motion, read_motion, write_motion
    positions = {"S1": dict(list(clip()["S1"].items())[:2])}
    write_motion(folder/"data_3d_right.npz", positions, dict(fps=50., source="me", cameras=[1, 2]), compress=False)
    def read(path):
        try: read_motion(path)
        finally:
            for actions in open_motion(path).positions.values(): list(actions.values())
    return (folder/"data_3d_right.npz").read_bytes(), "data_3d_mine.npz", read


def lifted(folder):
    from diffhpe.lifted import LiftedMotion
    from diffhpe.lifted_files import read_lifted, write_npz
    poses, zeros = np.zeros((2, 17, 3), np.float32), np.zeros((2, 17), np.float32)
    write_npz(LiftedMotion(poses, spread=zeros, fps=50., image_size=(640, 480), person="a"), folder/"right.npz")
    return (folder/"right.npz").read_bytes(), "walk.npz", read_lifted


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT LeftUpLeg
  {
    OFFSET 9 -4 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -40 0
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.0333
0 90 0 1 2 3 4 5 6
0 90 1 2 3 4 5 6 7
0 90 2 3 4 5 6 7 8
"""


def bvh(folder):
    from diffhpe.bvh import bvh_kinematics, read_bvh_motion
    return BVH, "a.bvh", lambda p: bvh_kinematics(read_bvh_motion(p))


READERS = {r.__name__: r for r in (config, calibration, table, metrics, finished, trial, history, notebook, grid, pairs,
                                   parameters, state, weights, released, keypoints, tables, arrays, motion, lifted, bvh)}

# --- mutations

HOSTILE = [None, True, False, 0, -1, 1, 2.5, -0., 1e308, 10**6, 10**9, 10**18, 2**63, 2**64, 10**400, -10**30, "", "x",
           "x"*5000, "\x1b]0;title\x07", "\u202egnp", "\x00", "a\nb", "../../x", "NaN", "__class__", [], {}, [[]], [0],
           {"": 0}, [1, "a"], {"a": {"b": 1}}, [[1., 2., 3.]]*3, float("nan"), float("inf"), float("-inf"), 1e-320]
TOKENS = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e-999", b"1" + b"0"*400, b"[", b"]", b"{", b"}", b",", b":",
          b'"', b"\\", b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf", b"\x1b[2J", b"<<<<<<< HEAD\n", b"true", b"null",
          b"["*3000, b'{"a":'*2000, b"*all", b"&x", b"!!python/name:os.system", b"!!binary", b"2001-02-30", b"? ", b"- ",
          b"\n", b"\t", b"#", b"|", b">", b"%", b"@", b"`", b"1:30:00", b"0x", b"0b2", b".inf", b"~", b"<<: *all", b"---\n"]


def places(value, found):
    "Every list and object of a value, with a key each."
    for k in (range(len(value)) if isinstance(value, list) else list(value)):
        found.append((value, k))
        if isinstance(value[k], (list, dict)): places(value[k], found)
    return found


def mutated_value(right, chance):
    value = json.loads(json.dumps(right))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        spots = places(value, [])
        if not spots: return value
        holder, key = chance.choice(spots)
        what = chance.randrange(6)
        if what < 3: holder[key] = deepcopy(chance.choice(HOSTILE))
        elif what == 3: del holder[key]
        elif what == 4 and isinstance(holder, dict): holder[str(chance.choice(HOSTILE))[:50]] = holder.pop(key)
        elif isinstance(holder[key], list): holder[key] *= chance.choice((2, 3, 1000))
        elif isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool) and abs(holder[key]) < 1e300:
            holder[key] *= chance.choice((-1, 10, 10**6, .5))
    return value


def mutated_bytes(data, chance):
    for _ in range(chance.choice((1, 1, 2, 4, 10))):
        i, j = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        what = chance.randrange(5)
        if what == 0 and data:
            k = chance.randrange(len(data))
            data = data[:k] + bytes([data[k] ^ 1 << chance.randrange(8)]) + data[k + 1:]
        elif what == 1: data = data[:i] + data[min(j, i + 40):]
        elif what == 2: data = data[:i] + chance.choice(TOKENS) + data[i:]
        elif what == 3: data = data[:i] + data[i:min(j, i + 200)]*chance.choice((2, 3, 50)) + data[i:]
        else: data = data[:i]
    return data


def mutated_archive(data, chance):
    "One member of a zip archive is mutated, left out, twice there or renamed; the archive is right."
    with zipfile.ZipFile(io.BytesIO(data)) as archive: members = [(n, archive.read(n)) for n in archive.namelist()]
    at, what = chance.randrange(len(members)), chance.randrange(8)
    name, contents = members.pop(at)
    if what == 0: name = chance.choice(members or [(name, b"")])[0]
    elif what == 1: name = f"{str(chance.choice(HOSTILE))[:200]}.npy".replace("\x00", "0")
    elif what == 2: members.append((name, contents))
    if what != 3: members.insert(at, (name, mutated_bytes(contents, chance) if what > 3 else contents))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", chance.choice((0, 8))) as archive:
        warnings.simplefilter("ignore")                   # of a name that is there twice
        for name, contents in members: archive.writestr(name, contents)
    return out.getvalue()


def mutated(right, chance):
    if isinstance(right, str): return mutated_bytes(right.encode(), chance)
    if isinstance(right, bytes):
        if right[:2] == b"PK" and chance.random() < .6: return mutated_archive(right, chance)
        data = mutated_bytes(right, chance)
        return data if right[:2] == b"PK" or chance.random() < .3 else with_checksum(data)
    if chance.random() < .6: return json.dumps(mutated_value(right, chance)).encode()
    return mutated_bytes(json.dumps(right).encode(), chance)


# --- the run

class Slow(BaseException): pass


def too_slow(*_): raise Slow


def fault_of(read, path):
    "What is wrong with how an input was taken; '' if nothing is."
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try: read(path)
    except (ValueError, FileNotFoundError) as e:
        text = str(e)
        if "\n" in text or len(text) > CHARACTERS: return f"message of {len(text):,} characters, {text.count(chr(10))} breaks"
        if not re.search(re.escape(str(path.parent)), text): return f"no path: {text[:200]}"
        if not text.isprintable(): return f"not printable: {ascii(text)[:200]}"
    except Slow: return f"more than {SECONDS} s"
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt): raise
        return f"{type(e).__name__}: {str(e)[:150]}"
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def fuzz(name, tries, seed=0, keep=None):
    "Mutate and read; → how many were read or refused, and the faults with their inputs."
    folder, chance, faults = Path(tempfile.mkdtemp(dir=MEMORY)), random.Random(f"{name} {seed}"), []
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        right, where, read = READERS[name](folder)
        path = folder/where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(right if isinstance(right, bytes) else
                         (right if isinstance(right, str) else json.dumps(right)).encode())
        assert not (fault := fault_of(read, path)), fault
        for _ in range(tries):
            path.write_bytes(data := mutated(right, chance))
            if fault := fault_of(read, path):
                faults.append((fault, data))
                if keep: (Path(keep)/f"{name}-{len(faults)}").write_bytes(data)
    finally:
        signal.signal(signal.SIGALRM, before)
        shutil.rmtree(folder)
    return faults


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10**5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--keep", help="folder for inputs that found a fault")
    given, bad = parser.parse_args(), 0
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.readers.split(","):
        fuzz(name, 20)                                    # what is imported on first use is not the reader's
        began, memory = time.time(), peak()
        faults = fuzz(name, given.tries, given.seed, given.keep)
        more = peak() - memory
        bad += len(faults) + (more > BYTES)
        print(f"{name}: {given.tries:,} inputs, {len(faults)} faults, {time.time() - began:.0f} s, {more/1e6:.0f} MB more at most",
              flush=True)
        for fault in sorted({f for f, _ in faults})[:20]: print("   ", fault, flush=True)
    sys.exit(min(bad, 1))
