"""Weights and masks that another program trained, as a run that `lth rewind` and `lth analyze` take.

Nobody here can train such a round again, so it is known by identity alone (`Known`), and the identity is the digest of
what it consists of: every state by step, and the mask. Trainings that start from one have that identity in theirs, so
that other bytes can never be taken for these.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.metrics import noting
from lth_cli.config.steps import Duration
from lth_cli.experiments import open_lth
from lth_cli.experiments.environment import describe_machine, git_commit
from lth_cli.experiments.imp import refuse_sparse_training
from lth_cli.experiments.plan import Plan, make_plan
from lth_cli.experiments.session import own_code_notes, row
from lth_cli.pruning import mask as mask_room
from lth_cli.pruning.mask import Masks
from lth_cli.store.files import digest, remove_tree, sha256_file
from lth_cli.store.masks import mask_digest
from lth_cli.store.runs import Run, RunExists, check_name, now
from lth_cli.store.states import State
from lth_cli.store.tensors import content_digest
from lth_cli.store.weights import read_weights
from lth_cli.training.loop import Trainer

Told = Callable[[str], None]
_ALMOST = 1e-3  # accuracies of the same weights that differ by more are worth a word


@dataclass(frozen=True)
class Imported:
    """A round that another program trained.

    Attributes:
        number: of the round; 0 is dense.
        masks: True = kept.
        states: weights and buffers by step, masked.
        logged: what its program measured, by (metric, step).
    """

    number: int
    masks: Masks
    states: dict[int, State]
    logged: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide its identity: the bytes of all that was imported."""
        states = {
            str(step): content_digest({**state.weights, **state.buffers}, {})
            for step, state in sorted(self.states.items())
        }
        return {"imported": {"states": states, "mask": mask_digest(self.masks)}}


def import_open_lth(folder: open_lth.Folder, config: schema.Config, name: str, tell: Told) -> Run:
    """A run of all levels of a folder of open_lth.

    Args:
        folder: read.
        config: its hyperparameters, and what a person said on top; `rewind.to` is where its levels start.
        name: of the run.
        tell: told what a person should know.

    Raises:
        RequestError: a file does not fit the model, or the files do not fit each other.
        RunExists: a run of that name is there.
    """
    steps = _first_plan(config)
    rounds: list[Imported] = []
    files: dict[str, str] = {}
    network = steps.dense.recipe.build(init_seed=0)
    for level in folder.levels:
        marks = _checked_masks(level.mask, _own_names(read_weights(level.mask)), steps)
        files[_within(level.mask, folder)] = sha256_file(level.mask)
        _check_density(level, marks)
        states = {}
        for (epoch, iteration), path in sorted(level.models.items()):
            if iteration >= steps.dense.steps_per_epoch:
                raise RequestError(
                    f"{path} lies beyond an epoch, which has {steps.dense.steps_per_epoch} steps here; is it of "
                    "another data set or batch size (dataset=, training.batch_size=)?"
                )
            step = epoch * steps.dense.steps_per_epoch + iteration
            states[step] = _state(path, _own_names(read_weights(path)), network, marks, step, tell)
            files[_within(path, folder)] = sha256_file(path)
        rounds.append(Imported(level.number, marks, states, level.logged))
    first = min(rounds[0].states)
    for one in rounds[1:]:
        _check_start(one, rounds[0], first)
    told = {"form": "open_lth", "hparams": folder.hparams, "files": files}
    config = config.model_copy(
        update={"rewind": config.rewind.model_copy(update={"to": Duration(iterations=first)})}
    )
    return _create(make_plan(config), name, rounds, folder.path, told, tell)


def import_weights(
    weights: Path, mask: Path | None, config: schema.Config, name: str, at: str, tell: Told
) -> Run:
    """A run of one pruned round: weights and a mask.

    Args:
        weights: file of a state dict, which may have the masks too: `mask.NAME`, or `NAME_orig` and `NAME_mask`.
        mask: file of the masks by name of the tensor; None takes those beside the weights.
        config: the model and its data, and where its training starts (`rewind.to`) and ends.
        name: of the run.
        at: `start`: weights that the ticket is trained from, those pruned included where they are known; `end`: weights
            that it was trained to.
        tell: told what a person should know.

    Raises:
        RequestError: the files do not fit the model or each other, or there is no mask.
        RunExists: a run of that name is there.
    """
    plan = _first_plan(config)
    tensors, beside = _with_masks(read_weights(weights))
    if mask is not None:
        alone = read_weights(mask)
        beside = _with_masks(alone)[1] or alone
    if not beside:
        raise RequestError(
            f"{weights} has no mask beside its weights (mask.NAME, or NAME_orig and NAME_mask): name a file of them, "
            "--mask FILE"
        )
    network = plan.dense.recipe.build(init_seed=0)
    marks = _checked_masks(mask or weights, beside, plan)
    everything = mask_room.everything({key: tuple(value.shape) for key, value in marks.items()})
    rounds = [Imported(0, everything, {}), Imported(1, marks, {})]
    step = plan.rewind_to if at == "start" else plan.end
    state = _state(weights, tensors, network, everything, step, tell)
    if at == "start":
        rounds[0].states[step] = state
    rounds[1].states[step] = _masked(weights, state, marks, tell if at == "end" else None)
    files = {path.name: sha256_file(path) for path in (weights, mask) if path is not None}
    return _create(plan, name, rounds, weights, {"form": "weights", "at": at, "files": files}, tell)


def _first_plan(config: schema.Config) -> Plan:
    refuse_sparse_training(config, "lth import takes masks that stay as they are")
    if config.distillation.teachers:
        raise ConfigError(("distillation.teachers", "nothing is trained by lth import"))
    return make_plan(config)


def _within(path: Path, folder: open_lth.Folder) -> str:
    return path.relative_to(folder.path).as_posix()


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what a wrapper puts before all of them: DataParallel's `module.`, open_lth's ImageNet `model.`."""
    found = dict(tensors)
    for prefix in ("module.", "model."):
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _with_masks(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and masks of a file that has both, in the forms that `lth export` writes; sparse ones as dense."""
    found = {
        name: tensor.to_dense() if tensor.layout != torch.strided else tensor
        for name, tensor in tensors.items()
    }
    marks = {name.removeprefix("mask."): found.pop(name) for name in list(found) if name.startswith("mask.")}
    for name in [name for name in found if name.endswith("_orig") and f"{name[:-5]}_mask" in found]:
        found[name[:-5]] = found.pop(name)
        marks[name[:-5]] = found.pop(f"{name[:-5]}_mask")
    return _own_names(found), _own_names(marks)


def _checked_masks(path: Path, tensors: Mapping[str, Tensor], plan: Plan) -> Masks:
    """Masks of a file as bool tensors, in the order of the model's parameters.

    Raises:
        RequestError: one is of no parameter, of another shape, or has other values than 0 and 1; or there is none.
    """
    if not tensors:
        raise RequestError(f"{path} has no mask")
    for name, tensor in tensors.items():
        if name not in plan.shapes:
            raise RequestError(
                f"{path}: {name!r} is no parameter of the model, which has {_some(plan.shapes)}"
            )
        if tuple(tensor.shape) != plan.shapes[name]:
            raise RequestError(
                f"{path}: the mask of {name} is {list(tensor.shape)}, the parameter {list(plan.shapes[name])}"
            )
        if bool(((tensor != 0) & (tensor != 1)).any()):
            raise RequestError(f"{path}: the mask of {name} has values that are neither 0 nor 1")
    return plan.ordered({name: tensor != 0 for name, tensor in tensors.items()})


def _some(names: Mapping[str, Any]) -> str:
    shown = list(names)[:6]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _state(
    path: Path, tensors: Mapping[str, Tensor], network: nn.Module, masks: Masks, step: int, tell: Told
) -> State:
    """Weights and buffers of a file, masked. Raises RequestError: they do not fit the model."""
    ours = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name in [*tensors, *ours]:
        if name not in tensors or name not in ours:
            what = "has no" if name in ours else "has"
            raise RequestError(
                f"{path} does not fit the model: it {what} tensor {name!r}; the model has {_some(ours)}"
            )
        theirs = tensors[name]
        if theirs.shape != ours[name].shape:
            raise RequestError(
                f"{path} does not fit the model: {name} is {list(theirs.shape)} there, {list(ours[name].shape)} here"
            )
        if theirs.is_floating_point() != ours[name].is_floating_point():
            raise RequestError(f"{path}: {name} is of {theirs.dtype}, the model's of {ours[name].dtype}")
        if not bool(torch.isfinite(theirs).all()):
            raise RequestError(f"{path}: {name} has values that are not finite")
    kept = {name: tensors[name].to(ours[name].dtype, copy=True).contiguous() for name in ours}
    weights = {name: kept[name] for name, _ in network.named_parameters()}
    buffers = {name: kept[name] for name, _ in network.named_buffers()}
    return _masked(path, State(step, weights, buffers), masks, tell)


def _masked(path: Path, state: State, masks: Masks, tell: Told | None) -> State:
    weights = mask_room.apply(state.weights, masks)
    moved = sum(int((weights[name] != state.weights[name]).sum()) for name in masks)
    if moved and tell is not None:
        tell(f"{path.name}: {moved:,} pruned weights were not zero; they are now")
    return dataclasses.replace(state, weights=weights)


def _check_density(level: open_lth.Level, masks: Masks) -> None:
    found = mask_room.density(masks)
    if level.density is not None and abs(level.density - found) > 1e-9:
        raise RequestError(
            f"{level.mask} keeps {found:.6%} of its weights, the sparsity_report.json beside it says "
            f"{level.density:.6%}"
        )


def _check_start(one: Imported, dense: Imported, first: int) -> None:
    """A level of open_lth starts from the weights of level 0 under its mask."""
    if one.masks.keys() != dense.masks.keys():
        raise RequestError(f"level {one.number} masks other tensors than level 0")
    if min(one.states) != first:
        raise RequestError(f"level {one.number} starts at step {min(one.states)}, level 0 at step {first}")
    expected = mask_room.apply(dense.states[first].weights, one.masks)
    for name, weight in one.states[first].weights.items():
        if not torch.equal(weight, expected[name]):
            raise RequestError(
                f"level {one.number} does not start from the weights of level 0 under its mask: {name} differs"
            )


def _create(
    plan: Plan, name: str, rounds: list[Imported], source: Path, told: Mapping[str, Any], tell: Told
) -> Run:
    """Measure the rounds, then write the run; on any failure none is left."""
    check_name(name)
    runs_dir = Path(plan.config.runs_dir)
    if (runs_dir / name).exists():
        raise RunExists(runs_dir / name)
    lines = [_measured(plan, one, tell) for one in rounds]
    dense = digest(rounds[0].description)
    note = {**told, "path": str(source.resolve()), "dense": dense}
    run = Run.create(
        runs_dir,
        name,
        plan.config.model_copy(update={"name": name}).model_dump(mode="json"),
        {
            "kind": "import",
            "imported": note,
            "command": ["lth", *sys.argv[1:]],
            "created": now(),
            "seeds": plan.config.resolved_seeds,
            **noting(plan.metrics),
            "git_commit": git_commit(),
            **own_code_notes(plan.config),
            **describe_machine(plan.config),
        },
    )
    try:
        with run.lock().acquire():
            for one, measured in zip(rounds, lines, strict=True):
                if one.states:  # of weights at the end of a ticket nothing is known of the dense network
                    _write(run, one, measured, dense, plan)
            run.write_results([row(round_.summary) for round_ in run.rounds()])
            run.update(state="finished", finished=now())
    except BaseException:
        remove_tree(run.path)
        raise
    return run


def _measured(plan: Plan, one: Imported, tell: Told) -> list[dict[str, Any]]:
    """Evaluations of the states of a round, by this program on this data; told where its own numbers differ."""
    lines = []
    for step, state in sorted(one.states.items()):
        trajectory = dataclasses.replace(plan.dense, masks=one.masks, first_step=step)
        trainer = Trainer(trajectory, state)
        splits: list[str] = [split for split in ("val", "test") if split in plan.dense.data.sizes]
        splits += ["train"] if plan.config.evaluation.train and step == max(one.states) else []
        for split in splits:
            found = trainer.evaluate(split)
            about: dict[str, Any] = {"step": step, "epoch": step / plan.dense.steps_per_epoch, "split": split}
            lines.append({**about, **found, "lr": trajectory.learning_rate(step), "seconds": 0.0})
            theirs = one.logged.get((f"{split}_accuracy", step))
            ours = found.get("accuracy")
            if theirs is not None and ours is not None and abs(theirs - ours) > _ALMOST:
                tell(
                    f"round {one.number}, step {step}: {split} accuracy {ours:.4f} measured here, {theirs:.4f} in its "
                    "logger; is the model, data set or its normalization another?"
                )
    return lines


def _write(run: Run, one: Imported, lines: list[dict[str, Any]], dense: str, plan: Plan) -> None:
    round_, description = run.round(one.number), one.description
    identity, first, last = digest(description), min(one.states), max(one.states)
    round_.save_masks(one.masks)
    for state in one.states.values():
        round_.save_checkpoint(state, identity)
    round_.write_metrics(lines)
    names = ["loss", *(metric.name for metric in plan.metrics)]
    density = mask_room.density(one.masks)
    round_.write_summary(
        {
            "round": one.number,
            "density": density,
            "sparsity": 1.0 - density,
            "densities": mask_room.layer_densities(one.masks),
            "kept": mask_room.layer_counts(one.masks),
            "metrics": {
                line["split"]: {name: line[name] for name in names if name in line}
                for line in lines
                if line["step"] == last
            },
            "logged": [[name, step, value] for (name, step), value in sorted(one.logged.items())],
            "trajectory": identity,
            "description": description,
            # What it begins from, which lth verify checks.
            "start": {"trajectory": dense, "step": first} if one.number else {},
            "start_step": first,
            "end_step": last,
            "nested": True,
            "steps_trained": 0,
            "steps_reused": 0,
            "seconds": 0.0,
        }
    )


def default_name(source: Path) -> str:
    """A name for the run of a file or folder."""
    stem = (
        source.resolve().parent.name + "-" + source.name
        if source.name.startswith("replicate_")
        else source.stem
    )
    return "import-" + re.sub(r"[^A-Za-z0-9.+]+", "_", stem).strip("_")[:100]
