"""Patterns keep their promises for any scores: exact counts, whole sets, nested masks."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_cli.config.errors import ConfigError
from lth_cli.config.patterns import parse_pattern
from lth_cli.pruning.distribute import distribute
from lth_cli.pruning.mask import is_nested, layer_counts, ones
from lth_cli.pruning.patterns import (
    check_density,
    check_pattern,
    follow,
    prune_fan_in,
    prune_n_of_m,
    prune_wholes,
)


def drawn(seed, *shape):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, shape, generator=source).double()  # with many ties


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1, 2), (2, 4), (3, 8)]))
def test_n_of_m_holds_in_every_group_of_inputs(seed, n_of_m):
    kept, size = n_of_m
    scores = {"linear": drawn(seed, 3, 2 * size), "conv": drawn(seed + 1, 2, size, 3, 3)}
    masks = prune_n_of_m(scores, ones(scores), kept, size)
    for name, mask in masks.items():
        groups = mask.movedim(1, -1).unflatten(-1, (-1, size))
        assert (groups.sum(-1) == kept).all()
        values = scores[name].movedim(1, -1).unflatten(-1, (-1, size))
        least = values.masked_fill(~groups, torch.inf).amin(-1)
        most = values.masked_fill(groups, -torch.inf).amax(-1)
        assert (least >= most).all()


def test_two_of_four_by_hand():
    scores = {"w": torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]])}
    mask = prune_n_of_m(scores, ones(scores), 2, 4)["w"]
    assert mask.tolist() == [[True, False, True, False, True, True, False, False]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_every_output_keeps_as_many_inputs(seed, count):
    scores = {"w": drawn(seed, 5, 4, 3)}
    mask = prune_fan_in(scores, ones(scores), {"w": count})["w"]
    assert mask.flatten(1).sum(1).tolist() == [math.ceil((60 - count) / 5)] * 5


def test_blocks_at_the_edge_are_smaller_and_means_are_fair_to_them():
    weight = torch.tensor([[1.0, 1, 9], [1, 1, 9], [3, 3, 8]])
    masks = prune_wholes({"w": weight}, ones({"w": weight}), 6, parse_pattern("block_2x2"))
    # Blocks of means 1, 9, 3 and 8: the first (4 weights) and then the third (2) go.
    assert masks["w"].tolist() == [[False, False, True]] * 2 + [[False, False, True]]
    masks = prune_wholes({"w": weight}, ones({"w": weight}), 5, parse_pattern("block_2x2"))
    assert masks["w"].sum() == 5, "the next block would be one weight too much"


def test_the_largest_score_of_a_block_can_stand_for_it():
    weight = torch.tensor([[9.0, 0, 2, 2]])
    by_mean, by_largest = (
        prune_wholes({"w": weight}, ones({"w": weight}), 2, parse_pattern(f"block_1x2{end}"))["w"].tolist()
        for end in ("", "_max")
    )
    assert by_mean == [[True, True, False, False]]
    assert by_largest == [[True, True, False, False]]
    weight = torch.tensor([[9.0, -9, 2, 2]])
    by_mean = prune_wholes({"w": weight}, ones({"w": weight}), 2, parse_pattern("block_1x2"))["w"]
    assert by_mean.tolist() == [[False, False, True, True]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 100))
def test_channels_go_as_wholes_and_one_of_each_layer_stays(seed, count):
    scores = {"a": drawn(seed, 4, 5), "b": drawn(seed + 1, 3, 2, 3, 3)}
    before = ones(scores)
    masks = prune_wholes(scores, before, count, parse_pattern("channel"))
    gone = sum(int((~mask).sum()) for mask in masks.values())
    assert gone <= count
    for mask in masks.values():
        rows = mask.flatten(1)
        assert (rows.all(1) | ~rows.any(1)).all()
        assert rows.any()
    more = prune_wholes(scores, masks, count, parse_pattern("channel"))
    assert is_nested(more, masks)


def test_biases_and_norms_go_with_their_channel():
    masks = {"w": torch.tensor([[True, False], [False, False]]), "b": torch.ones(2, dtype=torch.bool)}
    assert follow(masks, {"b": "w"})["b"].tolist() == [True, False]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=2), st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1
    ),
    st.integers(
        0, 100
    ),  # in %; no floats: a training makes the process flush small ones, which hypothesis refuses
    st.sampled_from(["erk", "uniform"]),
    st.data(),
)
def test_layers_get_exactly_so_many_and_no_more_than_they_have_room_for(shapes, share, how, data):
    room = {name: data.draw(st.integers(0, math.prod(shape))) for name, shape in shapes.items()}
    wanted = share * sum(room.values()) // 100
    counts = distribute(shapes, wanted, how, room)
    assert sum(counts.values()) == wanted
    assert all(0 <= counts[name] <= room[name] for name in shapes)


def test_a_saturated_layer_leaves_its_share_to_the_others():
    # ERK by hand: shapes 2x2 and 10x10, half of 104: densities in the proportion 1 : 0.2; the first would have 260/120
    # of its 4 weights, so it is full and the second has 48 of 100.
    assert distribute({"a": (2, 2), "b": (10, 10)}, 52, "erk") == {"a": 4, "b": 48}


@pytest.mark.parametrize(
    ("pattern", "shapes", "told"),
    [
        ("2:4", {"conv": (8, 3, 3, 3), "fc": (4, 8)}, "conv (3 inputs)"),
        ("channel", {"fc": (4, 8), "bias": (4,)}, "bias"),
    ],
)
def test_what_does_not_fit_is_named(pattern, shapes, told):
    with pytest.raises(ConfigError, match=r"pruning\.pattern") as error:
        check_pattern(parse_pattern(pattern), shapes)
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "block_0x2", "channels", ""])
def test_no_pattern(text):
    with pytest.raises(ValueError, match=r"write for example 2:4|is no pattern"):
        parse_pattern(text)


def test_unstructured_is_none():
    assert parse_pattern("unstructured") is None
    assert layer_counts(ones({"w": torch.zeros(2, 3)})) == {"w": 6}


@pytest.mark.parametrize(
    ("pattern", "density", "below", "told"),
    [
        (
            "unstructured",
            0.0011,
            0.001,
            "0.91, and one weight is kept at least, 1 in all; write 0.0011 or more",
        ),
        (
            "fan_in",
            0.0164,
            0.015,
            "one input of every output is kept at least, 15 in all; write 0.017 or more",
        ),
        (
            "channel",
            0.11,
            0.1,
            "one channel of every tensor is kept at least, 100 in all; write 0.11 or more",
        ),
        ("block_4x8", 0.0242, 0.02, "one block of every tensor is kept at least, 22 in all"),
    ],
)
def test_a_density_below_what_a_pattern_leaves_is_refused(pattern, density, below, told):
    shapes = {
        "conv.weight": (5, 2, 3, 3),
        "fc.weight": (10, 82),
    }  # 910; blocks at the edge are 1 x 2 x 9 and 2 x 2
    check_density(density, shapes, parse_pattern(pattern))
    with pytest.raises(ConfigError, match=re.escape(told)):
        check_density(below, shapes, parse_pattern(pattern))
