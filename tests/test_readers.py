"Readers of what is not trusted: mutated inputs, single flipped bits, and files of earlier versions."
import ast
import json
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as some

from fuzz_readers import READERS, bvh, fault_of, fuzz, keypoints, small_model, too_slow

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", READERS)
def test_mutated_inputs_end_in_one_sentence(name):
    "A short part of `python tests/fuzz_readers.py`."
    assert fuzz(name, 60, seed=3) == []


FOUND = [ # reader, what is changed in its right input, into what: inputs that the long runs stumbled on
    ("keypoints", b'"keypoints"', b'"keyp\\ud800oints"'), ("tables", b"scorer,DLC", b"\x1b[2Jx,DLC"),
    ("bvh", b"LeftUpLeg\n  {\n    OFFSET", b"LeftUpLeg\x0e\n  {\n    OFFS"), ("bvh", b"0.0333", b"0\x0e0333"), ("bvh", b"JOINT LeftUpLeg\n  {", b"JOINT " + b"[x"*1500 + b"\n  { y"),
    ("bvh", b"Hips\n{", b"Hips Zp\x1b[2Jos\n"), ("parameters", b'"random"', b'"%s"' % (b"x"*15000)),
    ("parameters", b'"seed"', b'"%s"' % (b"seed"*1000)), ("parameters", b"{", b"["*3000), ("released", b"STEblocks", b"TTEblocks"),
    ("released", b"PK", b""), ("weights", b"", b""), ("pairs", b"seed 3", b"seed " + b"9"*900)]


@pytest.mark.parametrize("name, before, after", FOUND, ids=range(len(FOUND)))
def test_what_was_found_once_is_one_sentence(name, before, after, tmp_path):
    right, where, read = READERS[name](tmp_path)
    data = right if isinstance(right, bytes) else (right if isinstance(right, str) else json.dumps(right)).encode()
    path = tmp_path/where
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.replace(before, after, 1 if name != "released" else -1) if before else b"")
    before = signal.signal(signal.SIGALRM, too_slow)
    try: assert fault_of(read, path) == ""
    finally: signal.signal(signal.SIGALRM, before)
    with pytest.raises(ValueError): read(path)


def flipped(data, bit): return data[:bit//8] + bytes([data[bit//8] ^ 1 << bit % 8]) + data[bit//8 + 1:]


def refused(path, read, tries, seed):
    "How many single flipped bits in a file are refused, with its name."
    whole, found = path.read_bytes(), 0
    for bit in random.Random(seed).sample(range(8*len(whole)), tries):
        path.write_bytes(flipped(whole, bit))
        try: read()
        except ValueError as e: found += str(path) in str(e)
    path.write_bytes(whole)
    return found


def state(folder):
    from diffhpe.config import FitConfig
    from diffhpe.optimisation import make_optimiser, train_step
    from diffhpe.training import Progress, load_state, save_state
    model, config = small_model(), FitConfig(1e-3, 8, 3, .1)
    optimiser = make_optimiser(model, config)
    train_step(model, optimiser, torch.randn(2, 9, 17, 2), torch.randn(2, 9, 17, 3), 0, 0)
    save_state(folder/"training.safetensors", model, optimiser, Progress(step=1, batch=1), dict(seed=0))
    return lambda: load_state(folder/"training.safetensors", model, optimiser, dict(seed=0))


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path, tries=40):
    "In the lifter's weights, which are older than the checksum, in new ones, and in a state. By hand: tries=300."
    from diffhpe.checkpoints import WEIGHTS, check_file, load_checkpoint, save_checkpoint
    again = state(tmp_path)
    assert again().step == 1
    assert refused(tmp_path/"training.safetensors", again, tries, 0) == tries
    folder = save_checkpoint(small_model(), tmp_path/"new")
    assert refused(folder/"model.safetensors", lambda: load_checkpoint(folder), tries, 1) == tries
    shipped = WEIGHTS/"lifter/diffhpe-wrapper/model.safetensors"
    whole, copy = shipped.read_bytes(), tmp_path/"weights/lifter/diffhpe-wrapper/model.safetensors"
    copy.parent.mkdir(parents=True)
    (tmp_path/"weights/checksums.json").write_text((WEIGHTS/"checksums.json").read_text())
    copy.write_bytes(whole)
    with pytest.MonkeyPatch.context() as m:
        m.setattr("diffhpe.checkpoints.WEIGHTS", tmp_path/"weights")
        check_file(copy)
        assert refused(copy, lambda: check_file(copy), tries, 2) == tries


def test_files_of_earlier_versions_are_read_with_a_word(tmp_path):
    from safetensors.torch import load_file, save_file

    from diffhpe.checkpoints import load_checkpoint, save_checkpoint
    again = state(tmp_path)
    path, folder = tmp_path/"training.safetensors", save_checkpoint(small_model(), tmp_path/"old")
    header = json.loads(path.read_bytes()[8:8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
    save_file(load_file(path), path, {k: v for k, v in header.items() if k != "checksum"})
    save_file(load_file(folder/"model.safetensors"), folder/"model.safetensors")
    for file, read in ((path, again), (folder/"model.safetensors", lambda: load_checkpoint(folder))):
        with pytest.warns(UserWarning, match="has no checksum, as earlier versions wrote it") as said: read()
        assert len(said) == 1 and str(file) in str(said[0].message)


def test_shipped_weights_and_published_results_are_read_without_a_word():
    from diffhpe.checkpoints import WEIGHTS, load_checkpoint
    from diffhpe.results import collect_runs
    from diffhpe.uncertainty import load_calibration
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in WEIGHTS.rglob("model.safetensors"): load_checkpoint(path.parent)
        for path in WEIGHTS.rglob("calibration.json"): load_calibration(path)
        runs = collect_runs(ROOT/"results")
    assert len(runs) == len(list((ROOT/"results").glob("*/metrics.json")))


@pytest.mark.parametrize("change, words", [
    (lambda v: v.int(), "of torch.int32"), (lambda v: v.to(torch.complex64), "of torch.complex64"),
    (lambda v: v*float("nan"), "holds a NaN"), (lambda v: v/0, "holds a NaN or an infinity")], ids=["int", "complex", "nan", "inf"])
def test_weights_of_another_kind_are_refused_as_such(tmp_path, change, words):
    from safetensors.torch import load_file

    from diffhpe.checkpoints import load_checkpoint, save_checkpoint, save_tensors
    file = save_checkpoint(small_model(), tmp_path)/"model.safetensors"
    save_tensors({k: change(v) if k == "denoiser.input.weight" else v for k, v in load_file(file).items()}, file)
    with pytest.raises(ValueError, match=words) as e: load_checkpoint(tmp_path)
    assert str(file) in str(e.value) and "denoiser.input.weight" in str(e.value)


# --- values of -p, and of every other option: any text is answered at once, in one sentence that quotes little of it

LETTERS = some.text("0123456789_.eE+-[]{}=,:'\"! \n\t\x1b\u202eaxXnN/", min_size=1, max_size=9)
LONG = some.builds(lambda begin, part, end, most: (begin + part*(most//len(part)) + end)[:10**5],
                   some.sampled_from(["", "1", "[", "mixste=", "0.", "-", "a"]), LETTERS, LETTERS,
                   some.sampled_from([1, 30, 99, 300, 4300, 10**4, 10**5]))


def given_by_papermill(text):
    from papermill.cli import _resolve_type
    return _resolve_type(text)


def given_to_grid(name, text):
    from diffhpe.grid import checked_pairs
    return checked_pairs([(name, text)])[name]


def check_sentence(error, value=""):
    "One line for a terminal, which quotes at most 200 characters of a value."
    text = str(error).replace("files cannot be read:\n", "")     # a list, of a line for each file
    assert text.isprintable() and len(text) < 2000 and "int_max_str_digits" not in text, text[:500]
    assert len(value) <= 210 or value[:210] not in text


def test_any_text_after_p_is_answered_within_a_second(tmp_path):
    from diffhpe.config import parameter_names, read_parameters
    from diffhpe.files import find_folder
    from diffhpe.results import run_folder

    def answer(name, read, text=""):
        began = time.process_time()
        try:
            experiment = read_parameters(dict(occ="none", results_dir=str(tmp_path)) | {name: read()})
            run_folder(experiment)
            find_folder(experiment.data_dir)
        except ValueError as e: check_sentence(e, text)
        return time.process_time() - began

    answer("seed", lambda: (given_by_papermill("1"), given_to_grid("seed", "1")))      # what is imported on first use

    @settings(max_examples=200, deadline=None)
    @given(some.sampled_from(parameter_names()), LONG)
    def all_of_them(name, text):
        assert answer(name, lambda: given_by_papermill(text), text) < 1
        assert answer(name, lambda: given_to_grid(name, text), text) < 1
    all_of_them()


def test_a_number_of_thousands_of_digits_is_no_number():
    from diffhpe.config import Experiment, read_number
    for text in ("9"*10**5, "9"*10**5 + "x", "1_"*5*10**4, "." + "1"*10**5, "1e" + "9"*10**5):
        began = time.process_time()
        assert read_number(text) == text
        with pytest.raises(ValueError, match="parameter seed=") as e: Experiment(seed=text)
        check_sentence(e.value, text)
        assert time.process_time() - began < .1


def motion_with(key, value, folder):
    from diffhpe.motion_files import write_motion
    write_motion(folder/"data_3d_a.npz", {"S1": {"walk": np.zeros((3, 17, 3), np.float32)}}, {key: value})


def lift_with(folder, **options):
    from diffhpe.command import lift_file
    right, name, _ = keypoints(folder)
    (folder/name).write_text(json.dumps(right))
    return lift_file(folder/name, **dict(image_size=(1920, 1080)) | options)


def from_bvh(folder, **options):
    from diffhpe.import_bvh import bvh_to_npz
    right, name, _ = bvh(folder)
    (folder/"S1").mkdir(exist_ok=True)
    (folder/"S1"/name).write_text(right)
    bvh_to_npz(folder, folder/"data_3d_a.npz", **options)


def load(**options):
    from diffhpe.datasets import load_dataset
    return load_dataset(**options)


def rate(value):
    from diffhpe.lifter import check_rate
    check_rate(value)


def searched(**ranges):
    from diffhpe.tuning import read_ranges
    return read_ranges(**ranges)


def published(folder, *sections, **scale):
    from diffhpe.grid import read_grid
    (folder/"a.yaml").write_text("sections: {a: [{seed: 1}]}")
    return read_grid(folder/"a.yaml", sections, **scale)


OPTIONS = {  # what is given a word: (word, folder)
    "dataset": lambda w, f: load(name=w, data_dir=None), "keypoints": lambda w, f: load(keypoints=w),
    "cameras": lambda w, f: load(cameras=w), "detector": lambda w, f: load(name="h36m", data_dir=f, keypoints=w),
    "set twice": lambda w, f: searched(learning_rate=w), "range": lambda w, f: searched(dropout=w),
    "name of a range": lambda w, f: searched(**{w: 1}), "section": lambda w, f: published(f, w),
    "scale": lambda w, f: published(f, scale=w), "parameter": lambda w, f: published(f, **{"seed": w}),
    "subject": lambda w, f: from_bvh(f, subject=w), "group": lambda w, f: from_bvh(f, subject="(" + w),
    "test": lambda w, f: from_bvh(f, test=w), "table": lambda w, f: from_bvh(f, table=w),
    "unit": lambda w, f: from_bvh(f, unit=w), "up": lambda w, f: from_bvh(f, up=w),
    "layout": lambda w, f: lift_with(f, layout=w), "person": lambda w, f: lift_with(f, person=w),
    "sampler": lambda w, f: lift_with(f, sampler=w), "aggregator": lambda w, f: lift_with(f, aggregate=w),
    "metadata": lambda w, f: motion_with("source", w + "x"*10**6, f), "name of metadata": lambda w, f: motion_with(w, [[1]], f),
    **{name: lambda w, f, name=name: given_to_experiment(name, w) for name in (
        "occ", "dataset", "preset", "model", "test_occ", "seed", "epochs", "device", "sampler", "keypoints", "channels",
        "recipe", "target", "loss", "results_dir", "mirror")}}
VALUES = {"experiment": lambda v, f: given_to_experiment("seed", v), "occlusion": lambda v, f: given_to_experiment("occ", v),
          "occlusions": lambda v, f: given_to_experiment("test_occ", [v]), "size": lambda v, f: lift_with(f, image_size=v),
          "rate": lambda v, f: rate(v), "range": lambda v, f: searched(dropout=v),
          "skip": lambda v, f: from_bvh(f, skip=v), "fps": lambda v, f: from_bvh(f, fps=v),
          "unit": lambda v, f: from_bvh(f, unit=v), "clips": lambda v, f: load(max_clips=[v]),
          "hypotheses": lambda v, f: lift_with(f, hypotheses=v), "steps": lambda v, f: lift_with(f, n_steps=v)}


def given_to_experiment(name, value):
    from diffhpe.config import Experiment
    from diffhpe.results import run_folder
    return run_folder(Experiment(**{name: value}))


@pytest.mark.parametrize("word", ["x"*10**5, "\x1b]0;title\x07"*10**4, "\u202e"*300, "a\nb"*10**3], ids=["long", "steers", "bidi", "lines"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_value_is_quoted_in_part_wherever_it_is_given(option, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError, ImportError)) as e: OPTIONS[option](word, tmp_path)
    check_sentence(e.value, word)


CHECKED = {"__init__", "config", "parallel",     # names of attributes; values that a rule has let pass
           "csdi", "diffpose", "models", "released", "schedule", "targets"}  # what only programs give


def bare(path):
    "Arguments that an error of their function quotes whole, by !r without a limit."
    for function in (f for f in ast.walk(ast.parse(path.read_text())) if isinstance(f, ast.FunctionDef)):
        given = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)}
        for v in (v for r in ast.walk(function) if isinstance(r, ast.Raise) for v in ast.walk(r)):
            if isinstance(v, ast.FormattedValue) and v.conversion == ord("r") and v.format_spec is None:
                if isinstance(v.value, ast.Name) and v.value.id in given: yield f"{path.name}:{v.lineno}: {v.value.id}"


def test_no_error_quotes_an_argument_whole():
    "`quoted` of `05_files` does it, or `!r:.200` below that floor."
    paths = [p for p in (ROOT/"diffhpe").glob("*.py") if p.stem not in CHECKED]
    assert len(paths) > 50 and [found for p in paths for found in bare(p)] == []
    assert list(bare(ROOT/"diffhpe/targets.py"))                                     # what it looks for


@pytest.mark.parametrize("value", [10**5000, [10**5000], list(range(10**4)), np.zeros((300, 3)), {"a": "x"*5000}],
                         ids=["digits", "digits in a list", "list", "array", "dict"])
@pytest.mark.parametrize("option", VALUES)
def test_a_wrong_value_of_another_kind_is_quoted_in_part(option, value, tmp_path):
    with pytest.raises((ValueError, TypeError)) as e: VALUES[option](value, tmp_path)
    check_sentence(e.value)
