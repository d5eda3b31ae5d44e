import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Schedule
from lth_cli.training import schedules


def build(target="constant", steps_per_epoch=10, horizon=100, **arguments):
    path = target if "." in target else f"lth_cli.training.schedules.{target}"
    config = Schedule.model_validate({"_target_": path, **arguments})
    return schedules.build(config, steps_per_epoch=steps_per_epoch, horizon=horizon)


def test_constant():
    factor, described = build()
    assert {factor(step) for step in (0, 50, 99, 100)} == {1.0}
    assert described == {"_target_": "lth_cli.training.schedules.constant", "warmup": 0}


def test_warm_up_is_linear_from_zero():
    factor, _ = build(warmup="2ep")
    assert [factor(step) for step in (0, 1, 10, 19, 20, 21)] == [0.0, 0.05, 0.5, 0.95, 1.0, 1.0]


def test_multi_step_drops_at_the_milestones():
    factor, described = build("multi_step", milestones=["3ep", "5ep2it"], gamma=0.5)
    assert [factor(step) for step in (0, 29, 30, 51, 52, 99)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert described["milestones"] == [30, 52]
    assert "horizon" not in described
    unsorted, _ = build("multi_step", milestones=["52it", "30it"], gamma=0.5)
    assert [unsorted(step) for step in range(100)] == [factor(step) for step in range(100)]


def test_milestones_count_from_the_start_of_training_warm_up_included():
    factor, _ = build("multi_step", milestones=["3ep"], gamma=0.1, warmup="4ep")
    assert factor(20) == pytest.approx(0.5)
    assert factor(30) == pytest.approx(0.75 * 0.1)
    assert factor(40) == pytest.approx(0.1)


def test_the_lmc_paper_resnet_schedule():
    """63,000 steps, x0.1 at 32,000 and 48,000, linear warm-up over 30,000 (Frankle et al. 2020, table 1)."""
    factor, _ = build("multi_step", milestones=["32000it", "48000it"], warmup="30000it", horizon=63_000)
    assert [
        factor(step) for step in (15_000, 30_000, 31_999, 32_000, 47_999, 48_000, 62_999)
    ] == pytest.approx([0.5, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_linear():
    factor, described = build("linear", final=0.1)
    assert [factor(step) for step in (0, 50, 100, 150)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    assert described["horizon"] == 100
    warm, _ = build("linear", warmup="20it")
    assert [warm(step) for step in (10, 20, 60, 100)] == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_cosine():
    factor, _ = build("cosine")
    assert [factor(step) for step in (0, 25, 50, 75, 100)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0], abs=1e-12
    )
    warm, _ = build("cosine", warmup="20it", final=0.2)
    assert [warm(step) for step in (20, 60, 100, 120)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_cyclic_troughs_of_portes_et_al():
    """Warm-up and first cycle of 8 epochs, doubling: troughs after 16, 32, 64, 128, 256 and 512 epochs."""
    factor, described = build("cyclic", steps_per_epoch=10, warmup="8ep", first_cycle="8ep")
    troughs = [step / 10 for step in range(80, 5200) if factor(step - 1) > factor(step) < factor(step + 1)]
    # The last step of a cycle is its lowest; the next one starts again from the full rate.
    assert [math.ceil(trough) for trough in troughs] == [16, 32, 64, 128, 256, 512]
    for epoch in (16, 32, 64, 128, 256, 512):
        assert factor(10 * epoch - 1) == pytest.approx(0.0, abs=1e-3)
        assert factor(10 * epoch) == 1.0
    assert factor(40) == 0.5
    assert factor(120) == pytest.approx(0.5)
    assert factor(240) == pytest.approx(0.5)
    assert described == {"_target_": described["_target_"], "warmup": 80, "first_cycle": 80}


def test_cyclic_of_equal_cycles():
    factor, _ = build("cyclic", warmup="8ep", first_cycle="10ep", growth=1.0, final=0.1)
    assert [factor(80 + 100 * cycle) for cycle in range(5)] == [1.0] * 5
    assert [factor(130 + 100 * cycle) for cycle in range(5)] == pytest.approx([0.55] * 5)
    assert factor(179) == pytest.approx(0.1, abs=1e-3)


@given(
    st.sampled_from(
        [
            ("constant", {}),
            ("linear", {"final": 0.3}),
            ("cosine", {}),
            ("cyclic", {"first_cycle": "3ep", "growth": 1.5}),
            ("multi_step", {"milestones": ["2ep", "30it"]}),
        ]
    ),
    st.integers(0, 50),
    st.integers(0, 500),
)
def test_factors_stay_between_zero_and_one(schedule, warmup, step):
    target, arguments = schedule
    factor, _ = build(target, warmup=f"{warmup}it", **arguments)
    assert 0.0 <= factor(step) <= 1.0
    assert isinstance(factor(step), float)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("constant", {"gamma": 0.1}, "schedule.gamma: unknown key"),
        ("multi_step", {}, "schedule.milestones: is required"),
        ("multi_step", {"milestones": ["30"]}, "schedule.milestones.0: "),
        ("multi_step", {"milestones": ["3ep"], "gamma": 0.0}, "schedule.gamma: "),
        ("cosine", {"final": 1.5}, "schedule.final: "),
        ("cosine", {"epochs": 10}, "schedule.epochs: unknown key"),
        ("cyclic", {"first_cycle": "0it"}, "schedule.first_cycle: "),
        ("cyclic", {"first_cycle": "3"}, "schedule.first_cycle: "),
        ("cyclic", {"first_cycle": "3ep", "growth": 0.5}, "schedule.growth: "),
        ("cosin", {}, "close to it: cosine"),
        ("builtins.dict", {}, "cannot be known"),
        ("fractions.Fraction", {}, "must return a function"),
    ],
)
def test_wrong_settings(target, arguments, message):
    with pytest.raises(ConfigError) as caught:
        build(target, **arguments)
    assert str(caught.value).startswith("schedule")
    assert message in str(caught.value)


def test_a_schedule_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_schedules.py").write_text(
        "def halved(*, steps_per_epoch: int, every: int):\n"
        "    return lambda step: 0.5 ** (step // (every * steps_per_epoch))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    factor, described = build("own_schedules.halved", every=2, warmup="5it")
    assert [factor(step) for step in (0, 5, 19, 20, 40)] == [0.0, 1.0, 1.0, 0.5, 0.25]
    assert described == {"_target_": "own_schedules.halved", "warmup": 5, "every": 2}


def falling_below_zero(*, horizon: int):
    return lambda step: 1.0 - 4.0 * step / horizon


def told_in_words(*, horizon: int):
    return lambda step: 1.0 if step < horizon - 1 else "none"


@pytest.mark.parametrize(
    ("function", "told"), [(falling_below_zero, "at step 26; a factor"), (told_in_words, "'none' at step 99")]
)
def test_a_schedule_that_gives_no_factor_is_refused_before_the_training(function, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        build(f"{__name__}.{function.__name__}")
