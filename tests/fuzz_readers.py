"""Mutated inputs for the readers of what is not trusted: each is read, or refused in one sentence that begins with the
path (or the option). By hand, 10^5 for each reader take hours on two cores:

    python tests/fuzz_readers.py --tries 100000 [--seed 0] [--readers config,grid]

tests/test_readers.py does some hundred."""
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from argparse import ArgumentParser
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch

SECONDS, BYTES, CHARACTERS = 5, 2**30, 2000

# --- what is mutated: a name → (an input that is right, a function that reads a file, an ending)

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
            cells_of(collect_runs(path.parent.parent))
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


def history(folder):
    "The progress in the header of a state, whose checksum is right."
    from diffhpe.checkpoints import save_tensors
    from diffhpe.config import FitConfig
    from diffhpe.optimisation import load_schedule, make_optimiser, make_schedule
    from diffhpe.training import Progress, load_state, save_state
    model, config = small_model(), FitConfig(1e-3, 8, 3, .1)
    optimiser, description = make_optimiser(model, config), dict(seed=0)
    schedule = make_schedule(optimiser, config)
    row = dict(epoch=1, step=3, learning_rate=1e-3, train_loss=.5, valid_loss=.4, valid_mpjpe=None, seconds=3.)
    progress = Progress(epoch=1, batch=1, step=4, learning_rate=1e-3, history=[row], schedule=schedule.state_dict())
    save_state(folder/"right.safetensors", model, optimiser, progress, description)
    def read(path):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        try: save_tensors({f"model/{k}": v for k, v in model.state_dict().items()}, path,
                          dict(progress=text, description=json.dumps(description)))
        except UnicodeEncodeError: return                  # no header can hold it
        found = load_state(path, model, optimiser, description)
        found.fits(path, 3)
        if found.schedule: load_schedule(path, schedule, found.schedule)
    return asdict(progress), "state.safetensors", read


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


READERS = {r.__name__: r for r in (config, calibration, table, metrics, finished, trial, history, notebook, grid, pairs)}

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


def mutated(right, chance):
    if isinstance(right, str): return mutated_bytes(right.encode(), chance)
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
    folder, chance, faults = Path(tempfile.mkdtemp()), random.Random(f"{name} {seed}"), []
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        right, where, read = READERS[name](folder)
        path = folder/where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(right if isinstance(right, str) else json.dumps(right))
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
