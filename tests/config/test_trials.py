"""Settings tried at quasi-random values."""

import math

import pytest

from lth_cli.config.compose import expand
from lth_cli.config.errors import ConfigError
from lth_cli.config.trials import Range, drawn_trials

LR = "tag(log,interval(1e-4,1))"


def test_values_are_those_of_the_authors_code():
    # namhoonlee/effect-dps-public, metaparameters.py: its Sobol generator, skip=2, learning_rate and momentum.
    ranges = {"lr": Range.parse("lr", LR), "m": Range.parse("m", "tag(reverse_log,interval(0.9,0.9999))")}
    drawn = [(float(one["lr"]), float(one["m"])) for one in drawn_trials(ranges, 4)]
    expected = [
        (0.01, 0.9968377223398318),
        (0.1, 0.9994376586748097),
        (0.001, 0.9822172058996113),
        (0.0031622776601683794, 0.9986664785678367),
    ]
    for found, wanted in zip(drawn, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-8)


def test_more_trials_go_on_where_fewer_ended_and_fill_the_range():
    ranges = {"n": Range.parse("n", "int(interval(10,18))"), "x": Range.parse("x", "interval(0,1)")}
    many = drawn_trials(ranges, 31)
    assert drawn_trials(ranges, 5) == many[:5]
    assert {one["n"] for one in many} == {str(n) for n in range(10, 18)}
    assert sorted(float(one["x"]) for one in many) == [n / 32 for n in range(1, 32)]


def test_each_combination_of_the_others_has_the_same_trials():
    points = expand(["seed=0,1", f"optimizer.lr={LR}", "name=x"], 2)
    assert points == [
        ("seed=0", "optimizer.lr=0.01", "name=x"),
        ("seed=0", "optimizer.lr=0.1", "name=x"),
        ("seed=1", "optimizer.lr=0.01", "name=x"),
        ("seed=1", "optimizer.lr=0.1", "name=x"),
    ]


@pytest.mark.parametrize(
    ("override", "trials", "message"),
    [
        ("a=interval(0,1)", None, "--trials 20"),
        ("a=0,1", 3, "needs a range"),
        ("a=interval(0,1)", 0, "from 1 to"),
        ("a=interval(0,1)", 10_001, "more than 10000"),
        ("a=interval(1,0)", 3, "below the second"),
        ("a=tag(log,interval(0,1))", 3, "above 0"),
        ("a=tag(reverse_log,interval(0,1))", 3, "below 1"),
        ("a=tag(loud,interval(0,1))", 3, "no range to try"),
    ],
)
def test_what_cannot_be_tried_is_refused(override, trials, message):
    with pytest.raises(ConfigError, match=message):
        expand([override], trials)


def test_a_momentum_near_one_is_even_in_the_logarithm_of_what_is_missing():
    found = Range.parse("m", "tag(reverse_log,interval(0.9,0.9999))")
    assert math.log10(1 - found.at(0.5)) == pytest.approx(-2.5)
    assert (found.at(0.0), found.at(1.0)) == pytest.approx((0.9999, 0.9))
