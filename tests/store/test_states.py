import dataclasses
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from lth_cli.store import masks as masks_
from lth_cli.store import tensors
from lth_cli.store.files import Damaged, ReadFailed
from lth_cli.store.formats import NewerFormat
from lth_cli.store.masks import load_mask, mask_digest, save_mask
from lth_cli.store.states import State, load_state, read_header, save_state, state_name, stored_steps


def make(step=7):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, generator=generator)
    return State(
        step,
        {"fc.weight": weight, "fc.bias": torch.zeros(5), "half": weight.bfloat16()},
        {"bn.count": torch.tensor(3), "flag": torch.tensor([True, False, True]), "none": torch.empty(0, 4)},
        {"fc.weight": {"exp_avg": weight * 2, "step": torch.tensor(7.0)}},
    )


def same(a, b):
    def flat(state):
        slots = {f"{n}/{k}": t for n, s in state.optimizer.items() for k, t in s.items()}
        held = {f"{owner}/{name}": t for owner, kept in state.memory.items() for name, t in kept.items()}
        return [state.weights, state.buffers, slots, state.masks, held]

    return a.step == b.step and all(
        x.keys() == y.keys()
        and all(x[k].dtype == y[k].dtype and x[k].shape == y[k].shape and torch.equal(x[k], y[k]) for k in x)
        for x, y in zip(flat(a), flat(b), strict=True)
    )


def test_round_trip_and_readable_by_the_library(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, make(), "t")
    assert same(load_state(path), make())
    assert (read_header(path).trajectory, read_header(path).step) == ("t", 7)
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("weights/fc.weight"), make().weights["fc.weight"])


def test_same_state_same_bytes_in_any_order_layout_and_process(tmp_path):
    state = make()
    save_state(tmp_path / "a", state, "t")
    turned = dict(reversed(state.weights.items()))
    turned["fc.weight"] = state.weights["fc.weight"].t().contiguous().t()
    save_state(tmp_path / "b", State(7, turned, state.buffers, state.optimizer), "t")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    code = (
        "import sys; from pathlib import Path; from lth_cli.store.states import *;"
        "a, b = map(Path, sys.argv[1:]); save_state(b, load_state(a), 't')"
    )
    command = [sys.executable, "-c", code, tmp_path / "a", tmp_path / "c"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "5"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def test_names_steps_and_dtypes_that_cannot_be_stored(tmp_path):
    for state in (
        State(0, {"a/b": torch.ones(1)}),
        State(0, {"": torch.ones(1)}),
        State(-1),
        State(0, {"a": torch.ones(1, dtype=torch.complex64)}),
    ):
        with pytest.raises(ValueError, match=r"cannot be stored|negative"):
            save_state(tmp_path / "s", state, "t")
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "s"
    save_state(path, make(), "t")
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(
            good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :]
        )
        with pytest.raises(Damaged):
            load_state(path)


def test_every_truncation_is_found(tmp_path):
    path = tmp_path / "s"
    save_state(path, make(), "t")
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(Damaged):
            load_state(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(Damaged):
        load_state(path)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch /tmp/lth-pwned",))


@pytest.mark.parametrize(
    "content", [pickle.dumps(Bomb()), b"", b"PK\3\4" * 100, (10 * 2**30).to_bytes(8, "little") * 9]
)
def test_other_files_in_place_of_a_state(tmp_path, content):
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        load_state(path)
    assert not os.path.exists("/tmp/lth-pwned")  # noqa: PTH110


def test_torch_pickle_in_place_of_a_state(tmp_path):
    torch.save({"a": Bomb()}, tmp_path / "s")
    with pytest.raises(Damaged):
        load_state(tmp_path / "s")


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": {"lth": "[]"}},
        {"__metadata__": {"other": "x"}},
        {"a": 3},
        [],
        {"__metadata__": {"lth": "{}"}, "a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}},
        {"__metadata__": {"lth": "{}"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
    ],
)
def test_hostile_headers(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "s").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(Damaged):
        load_state(tmp_path / "s")


def test_newer_format_is_not_called_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "FORMAT", tensors.FORMAT_PARTIAL + 1)
    save_state(tmp_path / "s", make(), "t")
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match="newer lth"):
        load_state(tmp_path / "s")


def test_masks_and_memory_are_of_a_format_of_their_own(tmp_path):
    """A state without them is written as ever; one with them, older releases leave alone."""
    masks = {"fc.weight": torch.rand(5, 3) > 0.5}
    full = dataclasses.replace(make(), masks=masks, memory={"client": {"fc.bias": torch.ones(5)}})
    save_state(tmp_path / "full", full, "t")
    save_state(tmp_path / "plain", make(), "t")
    assert same(load_state(tmp_path / "full"), full)
    assert tensors.read_about(tmp_path / "plain", "state")["format"] == 1
    assert tensors.read_about(tmp_path / "full", "state")["format"] == 2
    save_state(tmp_path / "wrong", dataclasses.replace(make(), masks={"fc.weight": torch.ones(5, 3)}), "t")
    with pytest.raises(Damaged, match="not a part of a state"):
        load_state(tmp_path / "wrong")


def test_a_mask_is_no_state_and_a_missing_file_no_damage(tmp_path):
    save_mask(tmp_path / "m", {"a": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(Damaged, match="not a state"):
        load_state(tmp_path / "m")
    with pytest.raises(ReadFailed):
        load_state(tmp_path / "none")


def test_stored_steps(tmp_path):
    for name in (state_name(10), state_name(2), "step_3.safetensors", "step_x.safetensors", ".tmp-1"):
        (tmp_path / name).write_text("")
    assert list(stored_steps(tmp_path)) == [2, 10]
    assert stored_steps(tmp_path / "none") == {}


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8,), (3, 5, 2)])
def test_masks_round_trip(tmp_path, shape):
    mask = {"a.weight": torch.rand(shape) > 0.5, "b": torch.ones(9, dtype=torch.bool)}
    save_mask(tmp_path / "m", mask)
    loaded = load_mask(tmp_path / "m")
    assert loaded.keys() == mask.keys()
    assert all(torch.equal(loaded[n], mask[n]) and loaded[n].dtype == torch.bool for n in mask)
    assert mask_digest(loaded) == mask_digest(dict(reversed(mask.items())))


def test_mask_is_one_bit_a_weight_and_digest_tells_masks_apart(tmp_path):
    mask = torch.ones(80_000, dtype=torch.bool)
    save_mask(tmp_path / "m", {"a": mask})
    assert (tmp_path / "m").stat().st_size < 10_500
    other = mask.clone()
    other[5] = False
    digests = {mask_digest(m) for m in ({"a": mask}, {"a": other}, {"b": mask}, {"a": mask.reshape(8, -1)})}
    assert len(digests) == 4
    with pytest.raises(ValueError, match="not boolean"):
        save_mask(tmp_path / "m", {"a": torch.ones(3)})


@pytest.mark.parametrize("shapes", [{"a": [2**50]}, {"a": [-1]}, {"a": "x"}, {"b": [3]}, None])
def test_planted_mask_shapes(tmp_path, shapes):
    tensors.write_tensors(
        tmp_path / "m", masks_._KIND, {"a": torch.zeros(1, dtype=torch.uint8)}, {"shapes": shapes}
    )
    with pytest.raises(Damaged):
        load_mask(tmp_path / "m")
