"Readers of what is not trusted: mutated inputs, single flipped bits, and files of earlier versions."
import json
import random
import warnings
from pathlib import Path

import pytest
import torch

from fuzz_readers import READERS, fuzz, small_model

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", READERS)
def test_mutated_inputs_end_in_one_sentence(name):
    "A short part of `python tests/fuzz_readers.py`."
    assert fuzz(name, 60, seed=3) == []


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
