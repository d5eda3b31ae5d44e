"""A training that ends at a goal."""

import random

import pytest

from lth_cli.config.goals import Goal
from lth_cli.config.metrics import ACCURACY, Metric
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Diverged

HERE = ("training.length=6ep", "optimizer=sgd", "optimizer.lr=0.05")  # 48 steps


def goal(value):
    return Goal("test", ACCURACY, value)


def told(advanced):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in advanced.metrics]


def first_reaching(trajectory, engine, value):
    """The step by the plainest way: train to the end, then look."""
    lines = engine.advance(trajectory, trajectory.horizon).metrics
    return min(line["step"] for line in lines if line["split"] == "test" and line["accuracy"] >= value)


@pytest.mark.parametrize("every", ["3it", "1h"])
def test_killed_anywhere_it_ends_at_the_same_step_with_the_same_bytes(
    every, make_dense, make_engine, stop_after
):
    trajectory = make_dense(*HERE)
    end = first_reaching(trajectory, make_engine("whole", evaluate="2it"), 0.85)
    assert 4 < end < 44
    straight = make_engine("straight", evaluate="2it")
    expected = straight.advance(trajectory, 48, until=goal(0.85))
    assert (expected.end, expected.reached, expected.trained, expected.reused) == (end, True, end, 0)
    assert straight.store.steps(trajectory.identity) == [0, end]
    assert {line["split"] for line in expected.metrics if line["step"] == end} == {"train", "test"}
    draw, interruptions = random.Random(every), 0
    for _ in range(5):
        try:
            broken = make_engine("broken", every, evaluate="2it", stop=stop_after(draw.randrange(2, 12)))
            broken.advance(trajectory, 48, until=goal(0.85))
        except Interrupted:
            interruptions += 1
    last = make_engine("broken", every, evaluate="2it")
    again = last.advance(trajectory, 48, until=goal(0.85))
    assert interruptions > 1
    assert (again.end, again.trained, told(again)) == (end, end, told(expected))
    paths = [engine.store.state_path(trajectory.identity, end) for engine in (straight, last)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_others_trained_and_how_often_they_looked_does_not_matter(make_dense, make_engine):
    trajectory = make_dense(*HERE)
    end = first_reaching(trajectory, make_engine("whole", evaluate="2it"), 0.85)
    make_engine("shared", evaluate="24it").advance(trajectory, 48)
    advanced = make_engine("shared", evaluate="2it", run="other").advance(trajectory, 48, until=goal(0.85))
    assert (advanced.end, advanced.reached) == (end, True)
    assert [line["step"] for line in advanced.metrics if line["split"] == "test"] == list(
        range(0, end + 1, 2)
    )


def test_without_reaching_it_the_training_is_whole(make_dense, make_engine):
    advanced = make_engine().advance(make_dense(*HERE), 48, keep=(13,), until=goal(1.01))
    assert (advanced.end, advanced.reached, advanced.diverged) == (48, False, None)


def test_a_loss_is_reached_from_above_and_the_start_may_have_it(make_dense, make_engine):
    loss = Metric("loss", "lower")
    reached = make_engine().advance(make_dense(*HERE), 48, until=Goal("test", loss, 1e3))
    assert (reached.end, reached.reached, reached.trained) == (0, True, 0)
    assert not Goal("test", loss, 0.5).reached({"split": "val", "loss": 0.1})
    assert not Goal("test", loss, 0.5).reached({"split": "test", "loss": None})


def test_one_that_diverges_ends_at_the_evaluation_before(make_dense, make_engine):
    trajectory = make_dense("optimizer=sgd", "optimizer.lr=1e18", "optimizer.weight_decay=0.0")
    engine = make_engine(evaluate="1it")
    with pytest.raises(Diverged) as told_by:
        make_engine("plain", evaluate="1it").advance(trajectory, 16)
    for _ in range(2):  # the second time from what the first stored
        advanced = engine.advance(trajectory, 16, until=goal(0.99))
        assert advanced.diverged == told_by.value.step
        assert advanced.end == max(line["step"] for line in advanced.metrics) < advanced.diverged
        assert not advanced.reached
        assert engine.store.load(trajectory.identity, advanced.end) is not None
