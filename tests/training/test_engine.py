import random

import pytest
import torch
from training_helpers import DROPOUT, RESNET, reference_training

from lth_cli.config.errors import LthError
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Diverged

NETS = {
    "lenet": (),
    "momentum": ("optimizer=sgd", "training.gradient_clip=0.5", "schedule=cosine", "schedule.warmup=3it"),
    "dropout": (*DROPOUT, "training.length=1ep4it"),
    "batch norm, bf16, augmented": (
        *RESNET,
        "precision=bf16",
        "dataset.augment.crop=1",
        "dataset.augment.flip=true",
    ),
    "channels last": (*RESNET, "optimizer.nesterov=true"),
    "row major": (*RESNET, "precision.channels_last=false"),
}


def end_bytes(engine, trajectory, step=None):
    path = engine.store.state_path(trajectory.identity, trajectory.horizon if step is None else step)
    return path.read_bytes()


def untimed(metrics):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in metrics]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("every", ["3it", "1h"])
def test_interrupted_anywhere_and_resumed_gives_identical_bytes(
    net, every, make_ticket, make_engine, stop_after
):
    trajectory = make_ticket(*NETS[net], start=2)
    straight = make_engine("straight")
    expected = straight.advance(trajectory, trajectory.horizon)
    draw = random.Random(f"{net} {every}")
    interruptions = 0
    for _ in range(4):
        try:
            make_engine("broken", every, stop=stop_after(draw.randrange(4, 14))).advance(
                trajectory, trajectory.horizon
            )
        except Interrupted as error:
            interruptions += 1
            assert "stopped" in str(error)
    last = make_engine("broken", every)
    advanced = last.advance(trajectory, trajectory.horizon)
    assert interruptions > 1
    assert end_bytes(last, trajectory) == end_bytes(straight, trajectory)
    assert untimed(advanced.metrics) == untimed(expected.metrics)
    assert (advanced.trained, advanced.reused) == (trajectory.horizon - 2, 0)


def test_twice_is_once(make_dense, make_engine):
    trajectory = make_dense()
    first = make_engine().advance(trajectory, trajectory.horizon)
    same_run, other_run = make_engine(), make_engine(run="other")
    again = same_run.advance(trajectory, trajectory.horizon)
    assert (first.trained, first.reused) == (16, 0) == (again.trained, again.reused)
    other = other_run.advance(trajectory, trajectory.horizon)
    assert (other.trained, other.reused) == (0, 16)
    assert other.metrics == again.metrics == first.metrics


def test_evaluating_more_often_changes_no_weight(make_dense, make_engine):
    trajectory = make_dense(*NETS["batch norm, bf16, augmented"])
    ends = []
    for folder, evaluate in (("rare", "100ep"), ("often", "1it")):
        engine = make_engine(folder, evaluate=evaluate)
        metrics = engine.advance(trajectory, trajectory.horizon).metrics
        ends.append(end_bytes(engine, trajectory))
        steps = [line["step"] for line in metrics if line["split"] == "test"]
        assert steps == ([0, 16] if folder == "rare" else list(range(17)))
    assert ends[0] == ends[1]


def test_metrics_of_a_run_do_not_depend_on_what_an_earlier_one_evaluated(make_dense, make_engine):
    trajectory = make_dense()
    make_engine(evaluate="1it").advance(trajectory, trajectory.horizon)
    metrics = make_engine(evaluate="8it").advance(trajectory, trajectory.horizon).metrics
    assert [(line["step"], line["split"]) for line in metrics] == [
        (0, "test"),
        (8, "test"),
        (16, "train"),
        (16, "test"),
    ]
    assert [line["epoch"] for line in metrics] == [0.0, 1.0, 2.0, 2.0]
    assert {line["lr"] for line in metrics} == {1.2e-3}


def test_any_step_can_be_reached_stored_or_not(make_dense, make_engine):
    """Rewinding to k is advancing to k: the same bytes whether training stopped there, passed or came back."""
    trajectory = make_dense(*NETS["momentum"])
    passed, stopped = make_engine("passed"), make_engine("stopped")
    passed.advance(trajectory, 16)
    assert passed.store.steps(trajectory.identity) == [0, 16]
    passed.state(trajectory, 11)
    stopped.advance(trajectory, 11)
    assert end_bytes(passed, trajectory, 11) == end_bytes(stopped, trajectory, 11)
    stopped.advance(trajectory, 16, keep=(13,))
    assert end_bytes(passed, trajectory, 16) == end_bytes(stopped, trajectory, 16)
    assert stopped.store.steps(trajectory.identity) == [0, 11, 13, 16]


def test_steps_of_a_shorter_training_are_used_by_a_longer_one(make_dense, make_engine):
    short, long = make_dense(), make_dense("training.length=3ep")
    engine = make_engine()
    engine.advance(short, 16)
    assert long.identity == short.identity
    advanced = make_engine(run="other").advance(long, 24)
    assert (advanced.trained, advanced.reused) == (8, 16)
    direct = make_engine("direct")
    direct.advance(long, 24)
    assert end_bytes(engine, long, 24) == end_bytes(direct, long, 24)


def test_a_ticket_starts_from_the_masked_state_of_its_parent(make_ticket, make_engine):
    ticket = make_ticket(start=5)
    engine = make_engine()
    advanced = engine.advance(ticket, 16)
    assert (advanced.trained, advanced.reused) == (11, 0)
    parent, start = engine.state(ticket.start.parent, 5), engine.state(ticket, 5)
    assert start.optimizer == {}
    for name, weight in start.weights.items():
        mask = ticket.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight, torch.where(mask, parent.weights[name], 0.0))
    with pytest.raises(LthError, match="before the start"):
        engine.advance(ticket, 4)


def test_a_diverging_training_says_where_and_stores_nothing_wrong(make_dense, make_engine):
    trajectory = make_dense("optimizer=sgd", "optimizer.lr=1e18", "optimizer.weight_decay=0.0")
    _, losses = reference_training(trajectory, 16)
    first = next(step for step, loss in enumerate(losses) if not torch.tensor(loss).isfinite())
    engine = make_engine()
    with pytest.raises(
        Diverged, match=rf"at step {first}; a lower optimizer.lr.*last finite metrics: test loss"
    ):
        engine.advance(trajectory, 16)
    assert engine.store.steps(trajectory.identity) == [0]
    with pytest.raises(Diverged):
        make_engine(every="1it", folder="often").advance(trajectory, 16)
    for step in make_engine(folder="often").store.steps(trajectory.identity):
        state = engine.store.load(trajectory.identity, step)
        assert state is None or all(weight.isfinite().all() for weight in state.weights.values())


def test_states_are_stored_row_major_whatever_the_layout(make_dense, make_engine):
    last, rows = make_dense(*RESNET), make_dense(*RESNET, "precision.channels_last=false")
    engine = make_engine()
    for trajectory in (last, rows):
        engine.advance(trajectory, 16)
    one, other = engine.state(last, 16), engine.state(rows, 16)
    for name, weight in one.weights.items():
        assert weight.is_contiguous()
        torch.testing.assert_close(weight, other.weights[name], rtol=1e-2, atol=1e-3)
    for name, slots in one.optimizer.items():
        for key, value in slots.items():
            assert value.is_contiguous()
            torch.testing.assert_close(value, other.optimizer[name][key], rtol=5e-2, atol=5e-3)


def test_dropout_depends_on_its_seed_and_the_step_alone(make_dense, make_engine):
    ends = {}
    for seed in (0, 1):
        trajectory = make_dense(*DROPOUT, "training.length=6it", f"seeds.augment={seed}")
        for folder in ("a", "b"):
            torch.manual_seed(random.randrange(10**6))
            engine = make_engine(f"{folder}{seed}")
            engine.advance(trajectory, 6)
            ends[seed, folder] = (
                end_bytes(engine, trajectory, 6),
                engine.state(trajectory, 6).weights["conv.weight"],
            )
    assert ends[0, "a"][0] == ends[0, "b"][0]
    assert ends[1, "a"][0] == ends[1, "b"][0]
    assert not torch.equal(ends[0, "a"][1], ends[1, "a"][1])
