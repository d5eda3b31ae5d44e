"""Retraining techniques, controls and pre-training: what each of them trains, and from where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_cli.config.compose import validate
from lth_cli.experiments.recorded import open_round
from lth_cli.pruning.controls import control_masks, inverted
from lth_cli.pruning.mask import layer_counts
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run
from lth_cli.store.states import State, load_state
from lth_cli.store.verify import verify_run
from lth_cli.training.trajectory import Trajectory

STEPS = 16
Lth = Callable[..., Any]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    """A folder with a finished run of two rounds and every control, `src`."""
    folder = tmp_path_factory.mktemp("room")
    kinds = "controls.kinds=[shuffle,random_global,inverted,reinit,keep_signs]"
    done = lth_in(folder, "prune", *small, "name=src", "pruning.rounds=2", "rewind.to=3it", kinds, "-q")
    assert done.code == 0, done.err
    return folder


def rewind(lth_in: Lth, room: Path, *arguments: str) -> tuple[Run, dict[str, Any]]:
    done = lth_in(room, "rewind", "src", "--json", "-q", *arguments)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    run = Run.open(room / result["path"])
    assert verify_run(run) == []
    return run, result


def start(round_: Round) -> State:
    return load_state(round_.checkpoints()[round_.summary["start_step"]])


def end(round_: Round) -> State:
    return load_state(round_.checkpoints()[round_.summary["end_step"]])


def masked(weights: dict[str, torch.Tensor], round_: Round) -> dict[str, torch.Tensor]:
    masks = round_.masks()
    return {name: weight * masks[name] if name in masks else weight for name, weight in weights.items()}


def alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["random", "random_global", "inverted", "reinit", "keep_signs"])
def test_controls_of_prune_are_those_of_rewind(room: Path, lth_in: Lth, kind: str) -> None:
    source = Run.open(room / "runs" / "src")
    assert source.branches() == ["inverted", "keep_signs", "random", "random_global", "reinit"]
    assert verify_run(source) == []
    run, result = rewind(lth_in, room, f"control={kind}")
    assert result["steps_trained"] == 0
    for number in (1, 2):
        theirs = source.round(number, kind).summary["trajectory"]
        assert run.round(number).summary["trajectory"] == theirs
    assert run.round(1).summary["nested"] is (kind in ("reinit", "keep_signs"))


def test_shuffle_is_another_name_of_random(room: Path, lth_in: Lth) -> None:
    run, _ = rewind(lth_in, room, "control=shuffle")
    other, _ = rewind(lth_in, room, "control.mask=shuffle", "name=spelled")
    assert run.config["control"] == other.config["control"] == {"mask": "random", "start": "rewind"}


def test_masks_keep_as_many(room: Path) -> None:
    source = Run.open(room / "runs" / "src")
    for number in (1, 2):
        ticket = layer_counts(source.round(number).masks())
        for kind in ("random", "inverted", "reinit", "keep_signs"):
            assert layer_counts(source.round(number, kind).masks()) == ticket
        other = source.round(number, "random_global").masks()
        assert sum(layer_counts(other).values()) == sum(ticket.values())
        assert layer_counts(other) != ticket
        assert not alike(source.round(number, "random").masks(), source.round(number).masks())


def test_inverted_keeps_the_smallest(room: Path) -> None:
    source = Run.open(room / "runs" / "src")
    dense = end(source.round(0)).weights
    for name, mask in source.round(2, "inverted").masks().items():
        magnitudes = dense[name].abs()
        assert magnitudes[mask].max() <= magnitudes[~mask].min()


def test_inverted_takes_ties_in_order() -> None:
    masks = {"w": torch.tensor([[True, False], [True, False]])}
    kept = inverted({"w": torch.tensor([[1.0, -1.0], [0.5, -3.0]])}, masks)["w"]
    assert kept.tolist() == [[False, True], [True, False]]


def test_weights_are_asked_only_where_needed() -> None:
    masks = {"w": torch.tensor([True, False])}

    def never() -> dict[str, torch.Tensor]:
        raise AssertionError

    assert control_masks("ticket", masks, never, seed=0, round_number=1) is masks
    for kind in ("random", "random_global"):
        control_masks(kind, masks, never, seed=0, round_number=1)


def test_signs_are_kept_and_magnitudes_drawn(room: Path) -> None:
    source = Run.open(room / "runs" / "src")
    for number in (1, 2):
        ticket, signs, fresh = (start(source.round(number, kind)) for kind in (None, "keep_signs", "reinit"))
        for name, mask in source.round(number).masks().items():
            assert torch.equal(signs.weights[name].sign(), ticket.weights[name].sign())
            assert torch.equal(signs.weights[name].abs(), fresh.weights[name].abs())
            assert not torch.equal(signs.weights[name], ticket.weights[name])
            assert not signs.weights[name][~mask].any()


def test_controls_from_the_trained_end_of_the_ticket(room: Path, lth_in: Lth) -> None:
    source = Run.open(room / "runs" / "src")
    for mask in ("ticket", "even"):
        run, _ = rewind(lth_in, room, f"control.mask={mask}", "control.start=end", "rounds=2")
        round_ = run.round(2)
        assert round_.summary["start_step"] == 3
        assert alike(start(round_).weights, masked(end(source.round(2)).weights, round_))
    densities = list(round_.summary["densities"].values())
    assert densities == pytest.approx([source.round(2).summary["density"]] * 2, abs=2e-3)
    told = lth_in(room, "rewind", "src", "control=random", "control.start=end", "rounds=1")
    assert told.code == 0
    assert "keeps start at zero, since the ticket pruned them" in " ".join(told.err.split())


def test_another_draw_of_a_control(room: Path, lth_in: Lth) -> None:
    first = Run.open(room / "runs" / "src").round(1, "reinit")
    other, _ = rewind(lth_in, room, "control=reinit", "seeds.init=9", "rounds=1")
    assert not alike(start(first).weights, start(other.round(1)).weights)


def test_learning_rate_rewinding(room: Path, lth_in: Lth) -> None:
    source = Run.open(room / "runs" / "src")
    run, _ = rewind(lth_in, room, "rewind=learning_rate", "rewind.to=5it", "schedule=cosine")
    for number in (1, 2):
        round_ = run.round(number)
        assert (round_.summary["start_step"], round_.summary["end_step"]) == (5, STEPS)
        assert alike(start(round_).weights, masked(end(source.round(number - 1)).weights, round_))
    rates = {line["step"]: line["lr"] for line in run.round(1).metrics()}
    assert rates[5] == pytest.approx(5e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 5 / STEPS)).item()))


def test_fine_tuning(room: Path, lth_in: Lth) -> None:
    source = Run.open(room / "runs" / "src")
    schedule = ("schedule=multi_step", "schedule.milestones=[1ep]")
    run, _ = rewind(lth_in, room, "rewind=fine_tune", "rewind.length=1ep", "rounds=2", *schedule)
    round_ = run.round(2)
    assert (round_.summary["start_step"], round_.summary["end_step"]) == (STEPS, STEPS + 8)
    assert alike(start(round_).weights, masked(end(source.round(1)).weights, round_))
    assert [line["lr"] for line in round_.metrics()] == pytest.approx([5e-4] * len(round_.metrics()))
    assert {line["split"] for line in round_.metrics() if line["step"] == STEPS + 8} == {"train", "test"}


def test_length_of_weight_rewinding(room: Path, lth_in: Lth) -> None:
    run, result = rewind(lth_in, room, "rewind.to=3it", "rewind.length=5it", "rounds=1")
    assert run.round(1).summary["end_step"] == 8
    assert result["steps_trained"] == 5 or result["steps_reused"] >= 5  # a part of what src trained


@pytest.mark.parametrize("technique", ["learning_rate", "fine_tune"])
def test_techniques_need_the_round_before(room: Path, lth_in: Lth, technique: str) -> None:
    rewind(lth_in, room, "rounds=2", "name=lonely")
    done = lth_in(room, "rewind", "lonely", f"rewind={technique}")
    assert done.code == 2
    assert "from the end of round 1, which lonely does not have" in done.err


@pytest.mark.parametrize("technique", ["learning_rate", "fine_tune"])
def test_iterative_techniques(tmp_path: Path, lth_in: Lth, small: tuple[str, ...], technique: str) -> None:
    done = lth_in(
        tmp_path, "prune", *small, f"rewind={technique}", "rewind.to=4it", "pruning.rounds=2", "name=a", "-q"
    )
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "a")
    assert verify_run(run) == []
    for number in (1, 2):
        first = 4 if technique == "learning_rate" else STEPS
        assert run.round(number).summary["start_step"] == first
        assert run.round(number).summary["end_step"] == first + STEPS - 4
        before = end(run.round(number - 1)).weights
        assert alike(start(run.round(number)).weights, masked(before, run.round(number)))
    # Weights that the next round prunes are the smallest at the end of each retraining.
    smallest = end(run.round(1)).weights["fc_layers.0.weight"].abs()
    assert smallest[~run.round(2).masks()["fc_layers.0.weight"]].max() < smallest.max()


def zeros_kept(round_: Round) -> float:
    """Share of the weights a round keeps that are zero at its start."""
    weights = start(round_).weights
    kept = torch.cat([weights[name][mask] for name, mask in round_.masks().items()])
    return float((kept == 0).float().mean())


@pytest.mark.parametrize("technique", ["learning_rate", "fine_tune"])
def test_controls_go_on_from_their_own_round_before(
    tmp_path: Path, lth_in: Lth, small: tuple[str, ...], technique: str
) -> None:
    asked = (f"rewind={technique}", "rewind.to=12it", "-q")
    kinds = "controls.kinds=[random,random_global,inverted]"
    done = lth_in(
        tmp_path, "prune", *small, *asked, "pruning.rounds=2", "pruning.fraction=0.5", kinds, "name=src"
    )
    assert done.code == 0, done.err
    source = Run.open(tmp_path / "runs" / "src")
    assert verify_run(source) == []
    for kind in ("random", "random_global", "inverted"):
        before = source.round(0)
        for number in (1, 2):
            round_ = source.round(number, kind)
            assert alike(start(round_).weights, masked(end(before).weights, round_))
            assert zeros_kept(round_) < 0.01  # starting from the ticket's end, half of them and more were
            assert round_.summary["nested"]
            before = round_
    # lth rewind trains the same, and refuses rounds that lack those before them.
    again, result = rewind(lth_in, tmp_path, "control=random", *asked)
    assert result["steps_trained"] == 0
    assert again.round(2).summary["trajectory"] == source.round(2, "random").summary["trajectory"]
    lonely = lth_in(tmp_path, "rewind", "src", "control=random", "rounds=last", *asked)
    assert lonely.code == 2
    assert "rounds=1-2" in lonely.err
    # Masks of a run that were drawn anew each round have no trained weights to go on from.
    rewind(lth_in, tmp_path, "control=random", "rewind=weights", "rewind.to=12it", "name=anew")
    refused = lth_in(tmp_path, "rewind", "anew", *asked)
    assert refused.code == 2
    assert "drawn anew each round" in refused.err


def test_controls_that_go_on_by_themselves_need_every_round(lth: Lth, small: tuple[str, ...]) -> None:
    refused = lth("prune", *small, "rewind=fine_tune", "controls.kinds=[random]", "controls.rounds=last")
    assert refused.code == 2
    assert "controls.rounds=1-12" in refused.err
    assert "goes on from its own round before" in refused.err


@pytest.mark.parametrize("technique", ["weights", "learning_rate"])
def test_a_kept_optimizer_comes_with_the_weights(
    tmp_path: Path, lth_in: Lth, small: tuple[str, ...], technique: str
) -> None:
    asked = (f"rewind={technique}", "rewind.optimizer=kept", "rewind.to=6it", "-q")
    own = ("optimizer=sgd", "optimizer.lr=0.05", "pruning.rounds=2", "controls.kinds=[reinit]")
    done = lth_in(tmp_path, "prune", *small, *own, *asked, "name=src")
    assert done.code == 0, done.err
    source = Run.open(tmp_path / "runs" / "src")
    dense = source.round(0)
    for number in (1, 2):
        round_ = source.round(number)
        before = dense.checkpoint(6) if technique == "weights" else end(source.round(number - 1))
        momentum = {name: entries["momentum_buffer"] for name, entries in before.optimizer.items()}
        started = {name: entries["momentum_buffer"] for name, entries in start(round_).optimizer.items()}
        assert alike(started, masked(momentum, round_))
        assert any(tensor.any() for tensor in started.values())
        for name, mask in round_.masks().items():
            assert not end(round_).optimizer[name]["momentum_buffer"][~mask].any()
        assert start(source.round(number, "reinit")).optimizer == {}  # new weights have moved nowhere
    again, result = rewind(lth_in, tmp_path, *asked)
    assert result["steps_trained"] == 0
    assert isinstance(open_round(again, 2, validate(again.config)).trajectory, Trajectory)
    fresh, _ = rewind(lth_in, tmp_path, *asked, "rewind.optimizer=fresh", "name=fresh", "rounds=1")
    assert fresh.round(1).summary["trajectory"] != source.round(1).summary["trajectory"]
    other = lth_in(tmp_path, "rewind", "src", *asked, "optimizer.momentum=0.5", "name=other")
    assert other.code == 2
    assert "rewind.optimizer: kept needs the optimizer of src: optimizer.momentum" in other.err


def test_at_initialisation_no_optimizer_has_a_state_to_keep(room: Path, lth_in: Lth) -> None:
    run, _ = rewind(lth_in, room, "rewind.to=0", "rounds=1", "name=zero")
    kept, result = rewind(lth_in, room, "rewind.to=0", "rewind.optimizer=kept", "rounds=1", "name=kept")
    assert kept.round(1).summary["trajectory"] == run.round(1).summary["trajectory"]
    assert result["steps_trained"] == 0


PRETRAINED = ("pretrain.length=1ep", "pretrain.subset={fraction: 0.5}", "+optimizer@pretrain.optimizer=sgd")


def test_pretrained_rewind_point(tmp_path: Path, lth_in: Lth, small: tuple[str, ...]) -> None:
    done = lth_in(tmp_path, "prune", *small, *PRETRAINED, "pruning.rounds=2", "name=a", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    run = Run.open(tmp_path / "runs" / "a")
    assert verify_run(run) == []
    # 12 steps are half of the digits: the subset of the pre-training takes the place of that of the data set.
    length = run.origin(0).summary["end_step"]
    assert result["origins"][0]["steps_trained"] == length == 12
    assert result["steps_trained"] == length + 3 * (STEPS - length)
    point = end(run.origin(0)).weights
    assert alike(start(run.round(0)).weights, point)
    for number in (1, 2):
        assert run.round(number).summary["start_step"] == length
        assert alike(start(run.round(number)).weights, masked(point, run.round(number)))
    # Its masks can be retrained, also elsewhere.
    again = lth_in(tmp_path, "rewind", "a", "rounds=1", "seeds.order=4", "--json", "-q")
    assert again.code == 0, again.err
    assert json.loads(again.out)["steps_trained"] == STEPS - length
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = lth_in(elsewhere, "rewind", str(run.path), "rounds=1", "--json", "-q")
    assert moved.code == 0, moved.err
    assert json.loads(moved.out)["steps_trained"] == STEPS - length


def test_pretraining_is_the_rewinding_of_open_lth(
    tmp_path: Path, lth_in: Lth, small: tuple[str, ...]
) -> None:
    """There the dense network, too, starts anew from the rewind point, with a fresh optimizer."""
    plain = lth_in(tmp_path, "train", *small, "optimizer=sgd", "checkpoint.keep=[6it]", "name=plain", "-q")
    done = lth_in(
        tmp_path, "prune", *small, "optimizer=sgd", "pretrain.length=6it", "pruning.rounds=1", "name=a", "-q"
    )
    assert plain.code == done.code == 0, done.err
    dense, run = Run.open(tmp_path / "runs" / "plain").round(0), Run.open(tmp_path / "runs" / "a")
    assert run.origin(0).summary["trajectory"] == dense.summary["trajectory"]
    assert run.origin(0).summary["steps_trained"] == 0
    for round_ in run.rounds():
        assert round_.summary["start_step"] == 6
        assert alike(start(round_).weights, masked(dense.checkpoint(6).weights, round_))
        assert start(round_).optimizer == {}
    assert not alike(end(run.round(0)).weights, end(dense).weights)


def test_pretrained_on_other_classes(tmp_path: Path, lth_in: Lth, small: tuple[str, ...]) -> None:
    """Everything but the output layer goes on from three classes; the head is that of a training from scratch."""
    classes = ("pretrain.length=4it", "pretrain.subset={classes: [7,1,4], fraction: 0.5}")
    done = lth_in(tmp_path, "prune", *small, *classes, "pruning.rounds=1", "name=a", "-q")
    assert done.code == 0, done.err
    assert lth_in(tmp_path, "train", *small, "training.length=1it", "name=scratch", "-q").code == 0
    run = Run.open(tmp_path / "runs" / "a")
    assert verify_run(run) == []
    point, first = end(run.origin(0)).weights, start(run.round(0)).weights
    scratch = start(Run.open(tmp_path / "runs" / "scratch").round(0)).weights
    assert point["fc.weight"].shape == (3, 20)
    assert run.origin(0).masks()["fc_layers.0.weight"].all()
    for name, weight in first.items():
        assert torch.equal(weight, scratch[name] if name.startswith("fc.") else point[name]), name
    assert run.round(0).summary["start"]["fresh"] == ["fc.bias", "fc.weight"]
    assert alike(start(run.round(1)).weights, masked(first, run.round(1)))
    # Nothing is trained again: by the same command, by a rewound run, or from the store alone.
    again = lth_in(tmp_path, "rewind", "a", "rounds=1", "--json", "-q")
    assert (again.code, json.loads(again.out)["steps_trained"]) == (0, 0), again.err
    copy = lth_in(tmp_path, "prune", *small, *classes, "pruning.rounds=1", "name=b", "--json", "-q")
    assert (copy.code, json.loads(copy.out)["steps_trained"]) == (0, 0), copy.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("pretrain.length=2ep",), "pretrain.length"),
        (("pretrain.length=5it", "rewind.to=3it"), "within the pre-training of 5 steps"),
        (("pretrain.length=5it", "+dataset@pretrain.dataset=mnist1d"), "pretrain.dataset"),
        (("rewind=fine_tune", "pruning.at=5it"), "pruning.at"),
    ],
)
def test_wrong_pretraining(
    tmp_path: Path, lth_in: Lth, small: tuple[str, ...], arguments: tuple[str, ...], told: str
) -> None:
    done = lth_in(tmp_path, "prune", *small, *arguments, "-q")
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "runs").exists()
