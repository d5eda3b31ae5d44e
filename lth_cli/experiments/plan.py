"""A request checked against data, model and machine before anything is created."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from lth_cli.config import goals, schema
from lth_cli.config.distilling import Distillation
from lth_cli.config.errors import ConfigError
from lth_cli.config.metrics import Metric
from lth_cli.config.patterns import parse_pattern
from lth_cli.config.steps import Duration
from lth_cli.config.values import exact
from lth_cli.data.batches import Data
from lth_cli.data.prepare import prepare
from lth_cli.data.source import open_place
from lth_cli.experiments import torchrun
from lth_cli.experiments.processes import check_processes
from lth_cli.experiments.schedule_warnings import schedule_warnings
from lth_cli.models.build import channel_followers, new_head, output_tensors, prunable
from lth_cli.models.layers import turned
from lth_cli.objectives.own_metrics import OwnMetric, own_metrics
from lth_cli.pruning.mask import Masks
from lth_cli.pruning.patterns import check_density, check_pattern
from lth_cli.pruning.scores import check_score
from lth_cli.pruning.select import density_of, fraction_of, select_prunable
from lth_cli.store.files import canonical
from lth_cli.training import optimizers, precision
from lth_cli.training.engine import Engine
from lth_cli.training.freezing import chosen_tensors, frozen
from lth_cli.training.recipe import Loading, recipe
from lth_cli.training.trajectory import (
    Distilled,
    FromState,
    Initial,
    Isometric,
    Joined,
    KeptSigns,
    Start,
    Teacher,
    Trajectory,
    dense,
)


@dataclass(frozen=True)
class NamedTeacher:
    """A teacher that is the same for all rounds.

    Attributes:
        name: as it was asked for, which may stand for several.
        label: which it is.
        teacher: itself.
        provide: lets the store of an engine have its state, or what that is trained from.
    """

    name: str
    label: str
    teacher: Teacher
    provide: Callable[[Engine], None]


@dataclass(frozen=True)
class Taken:
    """Weights from elsewhere that the dense training starts from.

    Attributes:
        name: as they were asked for.
        label: which they are.
        of: the state.
        provide: lets the store of an engine have it.
    """

    name: str
    label: str
    of: FromState
    provide: Callable[[Engine], None]


@dataclass(frozen=True)
class Plan:
    """Everything an experiment needs, checked.

    Attributes:
        config: validated, with device and threads settled.
        dense: the dense trajectory.
        shapes: shape of every parameter of the model by name, in order of definition.
        prunable: names of the tensors that pruning may touch.
        attached: names among them of what goes with an output channel, with the weight it belongs to.
        left_out: number of weights of convolution and linear layers that pruning may not touch.
        output: names of the output layer's tensors.
        rewind_to: step of the dense training that rounds rewind to.
        keep: further steps of the dense training whose states a run keeps.
        first_step: step counter at the start of a retraining.
        end: step counter at the end of a retraining.
        teachers: those that are the same for all rounds; None until `teachers.with_teachers` has found them.
        warnings: what a person should know before the work begins.
        own: metrics of a person's own.
        carried: tensors that a round takes from the end of the one before.
        taken: weights from elsewhere; None until `weights.with_weights` has found them.
        goal: that ends a training before its length.
    """

    config: schema.Config
    dense: Trajectory
    shapes: dict[str, tuple[int, ...]]
    prunable: list[str]
    attached: dict[str, str]
    left_out: int
    output: list[str]
    rewind_to: int
    keep: tuple[int, ...]
    first_step: int
    end: int
    teachers: tuple[NamedTeacher, ...] | None = None
    warnings: tuple[str, ...] = ()
    own: tuple[OwnMetric, ...] = ()
    carried: tuple[str, ...] = ()
    taken: Taken | None = None
    goal: goals.Goal | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured; the first is the headline."""
        return (*self.dense.recipe.objective.metrics, *(own.metric for own in self.own))

    @property
    def prunable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that pruning may touch."""
        return {name: self.shapes[name] for name in self.prunable}

    def ordered(self, masks: Masks) -> Masks:
        """Masks in the order of the model's parameters, on which random ones and ties depend; files sort by name."""
        order = {name: position for position, name in enumerate([*self.prunable, *self.shapes])}
        return dict(sorted(masks.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))

    def scored_at(self, trajectory: Trajectory) -> int:
        """The step at which the weights of a round are scored."""
        at = self.config.pruning.at
        if at is None:
            return trajectory.end
        return max(at.steps(self.dense.steps_per_epoch), self.dense.first_step)

    def scored(self, trajectory: Trajectory) -> FromState:
        """The state whose weights, under the masks of a round's training, are scored for the next.

        Up to the step that rounds rewind to, all rounds score the dense training: they share it until then.
        """
        step = self.scored_at(self.dense)
        if self.config.pruning.at is not None and step <= self.rewind_to:
            return FromState(self.dense, step)
        return FromState(trajectory, self.scored_at(trajectory))

    @property
    def dense_round(self) -> Trajectory:
        """The dense training as far as it is a round of the run."""
        if self.config.pruning.train_dense:
            return self.dense
        needed = max(self.rewind_to, self.scored_at(self.dense), *self.keep)
        return dataclasses.replace(self.dense, ends_at=needed)

    def retraining(
        self, masks: Masks, start: Start, networks: Mapping[str, Teacher] | None = None
    ) -> Trajectory:
        """The training of a round: this config's, with masks, as long and at the rates that `rewind` says.

        Args:
            masks: True = kept.
            start: where its weights come from.
            networks: what the teachers `dense` and `previous` stand for in this round.
        """
        pruned = not all(bool(mask.all()) for mask in masks.values())
        fine_tune = self.config.rewind.technique == "fine_tune"
        trajectory = dataclasses.replace(
            self.dense,
            start=self._prepared(start),
            masks=masks if pruned else {},
            first_step=self.first_step,
            distilled=None,
            rate_held_from=self.dense.horizon - 1 if fine_tune else None,
            ends_at=self.end,
        )
        return self.distilled(trajectory, networks or {})

    def _prepared(self, start: Start) -> Start:
        """A start with what `rewind` says is done to it."""
        iterations = self.config.rewind.isometry
        if iterations and isinstance(start, Initial | FromState | KeptSigns):
            return Isometric(start, iterations)
        return self._with_optimizer(start)

    def _with_optimizer(self, start: Start) -> Start:
        """A start with the optimizer of its state, where that is asked for and the state has one."""
        if self.config.rewind.optimizer == "fresh" or not isinstance(start, FromState):
            return start
        first = (start.parent if isinstance(start.parent, Trajectory) else self.dense).first_step
        return dataclasses.replace(start, keeps_optimizer=True) if start.step > first else start

    def own_teacher(self, of: FromState) -> Teacher:
        """A network of this plan's architecture and data as a teacher."""
        return Teacher(of, self.config.model.model_dump(mode="json"), self.dense.recipe.interface.input_shape)

    def distilled(self, trajectory: Trajectory, networks: Mapping[str, Teacher]) -> Trajectory:
        """A training with the teachers of this config; without any it is left as it is.

        Args:
            trajectory: without teachers.
            networks: what the teachers `dense` and `previous` stand for, where they stand for anything.

        Raises:
            ConfigError: no step of it distils.
        """
        section = self.config.distillation
        teachers: list[Teacher] = []
        for name in section.teachers:
            if name in networks:
                teachers.append(networks[name])
            else:
                teachers += [found.teacher for found in self.teachers or () if found.name == name]
        if not teachers:
            return trajectory
        begins, ends = taught_between(section, trajectory)
        if begins >= ends:
            steps = trajectory.end - trajectory.first_step
            raise ConfigError(
                (
                    "distillation.end",
                    f"from {section.start} to {section.end} of a training of {steps} steps lies no step that distils",
                )
            )
        augmented = trajectory.data.augmented
        distilled = Distilled(
            tuple(teachers),
            section.loss,
            section.temperature,
            section.weight,
            section.task_weight,
            begins=begins,
            ends=None if section.end == 1.0 else ends,
            every=section.every,
            sample=None if section.sample is None or section.sample >= len(teachers) else section.sample,
            dtype=trajectory.execution.dtype if section.precision == "same" else section.precision,
            by_example=self.config.evaluation.batch_size if section.cache and not augmented else None,
            cached=section.cache and augmented,
            patches=section.patches,
            patches_by=section.patches_by,
        )
        return dataclasses.replace(trajectory, distilled=distilled)


def taught_between(section: Distillation, trajectory: Trajectory) -> tuple[int, int]:
    """First step of a training that may distil, and the one from which on none does, by the shares of a section."""
    first, steps = trajectory.first_step, trajectory.end - trajectory.first_step
    begins, ends = (first + math.ceil(exact(share) * steps) for share in (section.start, section.end))
    return begins, ends


class Machine(Protocol):
    """What a config says of this machine."""

    @property
    def device(self) -> str:
        """Where to compute what cannot be computed where it was."""

    @property
    def threads(self) -> Any:
        """And with how many threads: `auto` or a number."""


def plan_of_stored(config: schema.Config, machine: Machine) -> Plan:
    """The plan of a stored config: on its own device where this machine has that, else on the machine's.

    Raises:
        ConfigError: as make_plan.
    """
    try:
        return make_plan(config)
    except ConfigError as error:
        if [path for path, _ in error.problems] != ["device"]:
            raise
        return make_plan(config.model_copy(update={"device": machine.device, "threads": machine.threads}))


def make_plan(config: schema.Config) -> Plan:
    """Load the data, try the model, resolve every step; nothing is written but caches of data.

    Raises:
        ConfigError: naming the config path of whatever does not fit.
    """
    check_processes(config)
    _check_isometry(config)
    place = torchrun.launched()
    execution = precision.resolve(config, local_processes=place.local_size if place else None)
    shared = execution.processes > 1  # each process has a device of its own
    settled = {
        "device": execution.device.type if shared else str(execution.device),
        "threads": execution.threads,
    }
    config = config.model_copy(update=settled)
    made = recipe(config, load_data(Loading.of(config), execution), execution)
    trajectory = _pretrained(config, dense(made))
    model = made.build(config.resolved_seeds["init"])
    made.objective.check(model)
    _check_turned(config, turned(model))
    optimizer = optimizers.build(config.optimizer, model)
    if config.rewind.optimizer == "kept":
        optimizers.check_maskable(optimizer, model)
    if config.pretrain.length and config.pretrain.optimizer is not None:
        optimizers.build(config.pretrain.optimizer, model)
    made.update.check(model, frozen(model, config.training.freeze))
    output = output_tensors(model)
    all_names = prunable(model, biases=config.pruning.biases)
    attached: dict[str, str] = {}
    pattern = parse_pattern(config.pruning.pattern)
    channels = pattern is not None and pattern.kind == "channel"
    if channels and config.pruning.output_layer == "prune":
        raise ConfigError(
            ("pruning.output_layer", "pruning.pattern=channel would prune outputs of the network; write keep")
        )
    names = select_prunable(config.pruning, all_names, output, config.model.prune_output and not channels)
    check_score(config.pruning, made.interface.sizes.get("classes"))
    for name in names:
        fraction_of(config.pruning, name, output)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if pattern is not None:
        check_pattern(pattern, {name: shapes[name] for name in names})
    _check_densities(config.pruning, {name: shapes[name] for name in names})
    if channels:
        followers = channel_followers(model, made.interface)
        attached = {name: of for name, of in followers.items() if of in names}
        names = [name for name in shapes if name in names or name in attached]
    trajectory = _sparse(trajectory, {name: shapes[name] for name in names}, frozen(model, made.freeze))
    left_out = sum(math.prod(shapes[name]) for name in all_names if name not in names)
    rewind_to, first_step, end = _retraining_steps(config, trajectory)
    if config.pruning.at is not None:
        if config.rewind.technique == "fine_tune":
            raise ConfigError(("pruning.at", "rewind.technique=fine_tune scores the end of each training"))
        _step("pruning.at", config.pruning.at, trajectory, 0, end)
    elif not config.pruning.train_dense:
        raise ConfigError(
            ("pruning.train_dense", "false needs pruning.at=, else the end of the dense training is scored")
        )
    keep = [
        _step("checkpoint.keep", step, trajectory, 0, trajectory.horizon) for step in config.checkpoint.keep
    ]
    return Plan(
        config,
        trajectory,
        shapes,
        names,
        attached,
        left_out,
        output,
        rewind_to,
        tuple(keep),
        first_step,
        end,
        warnings=schedule_warnings(config, trajectory),
        own=own_metrics(config.evaluation.metrics, made.objective.metrics),
        carried=_carried(config, model, names),
        goal=_goal(config, trajectory),
    )


def _goal(config: schema.Config, trajectory: Trajectory) -> goals.Goal | None:
    """The goal that ends a training.

    Raises:
        ConfigError: at `until`: no such metric or split is measured.
    """
    if config.until is None:
        return None
    split, name, value = goals.parts(config.until)
    if split not in trajectory.data.sizes:
        raise ConfigError(
            (
                "until",
                f"{config.until} is of validation examples, and there are none; write dataset.validation=0.1",
            )
        )
    known = (*trajectory.recipe.objective.metrics, Metric("loss", "lower"))
    metric = next((metric for metric in known if metric.name == name), None)
    if metric is None:
        accepted = ", ".join(f"{split}_{metric.name}" for metric in known)
        raise ConfigError(("until", f"{split}_{name} is not measured here; accepted: {accepted}"))
    return goals.Goal(split, metric, value)


def _check_densities(config: schema.Pruning, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse densities that no masks of these tensors have.

    Raises:
        ConfigError: at `pruning.density` or `pruning.layer_densities`.
    """
    pattern = parse_pattern(config.pattern)
    apart = {name: density for name in shapes if (density := density_of(config, name)) is not None}
    for name, density in apart.items():
        check_density(density, {name: shapes[name]}, pattern, f"pruning.layer_densities: {name}")
    if config.density is not None:
        check_density(
            config.density, {name: shape for name, shape in shapes.items() if name not in apart}, pattern
        )


def _carried(config: schema.Config, model: nn.Module, prunable: Sequence[str]) -> tuple[str, ...]:
    """Tensors that go on from round to round.

    Raises:
        ConfigError: at `rewind.carry`: there are none, they are pruned, or all weights go on as it is.
    """
    rewind = config.rewind
    if not rewind.carry:
        return ()
    names = chosen_tensors(model, rewind.carry, "rewind.carry")
    wrong = [name for name in names if name in prunable]
    if wrong:
        raise ConfigError(
            (
                "rewind.carry",
                f"{', '.join(wrong)} are pruned; leave them out with pruning.exclude or output_layer=keep",
            )
        )
    for key, value, needed in (
        ("rewind.technique", rewind.technique, "weights"),
        ("rewind.optimizer", rewind.optimizer, "fresh"),
        ("rewind.isometry", rewind.isometry, 0),
    ):
        if value != needed:
            raise ConfigError(("rewind.carry", f"needs {key}={needed}"))
    return tuple(names)


def _check_isometry(config: schema.Config) -> None:
    """Weights made isometric forget what training gave them, so they cannot be those that a round trains on.

    Raises:
        ConfigError: at `rewind.isometry`.
    """
    rewind = config.rewind
    if not rewind.isometry:
        return
    for key, value, needed in (
        ("rewind.technique", rewind.technique, "weights"),
        ("rewind.optimizer", rewind.optimizer, "fresh"),
    ):
        if value != needed:
            raise ConfigError(
                ("rewind.isometry", f"makes weights anew; it needs {key}={needed}, or rewind.isometry=0")
            )
    if config.control.start == "end":
        raise ConfigError(
            ("rewind.isometry", "makes weights anew, and control.start=end trains on; rewind.isometry=0 does")
        )


def _check_turned(config: schema.Config, names: Sequence[str]) -> None:
    """What tells outputs from inputs takes weights [outputs, inputs].

    Args:
        config: of the run.
        names: of the weights that lie the other way round.

    Raises:
        ConfigError: at the first key that would take them the wrong way round.
    """
    if not names:
        return
    drawn = config.model.init.weights
    for key, value, neutral in (
        ("pruning.pattern", config.pruning.pattern, "unstructured"),
        (
            "sparse_training.pattern",
            config.sparse_training.arguments.get("pattern", "unstructured"),
            "unstructured",
        ),
        ("rewind.isometry", config.rewind.isometry, 0),
        # All others are the same for both.
        ("model.init.weights", drawn if drawn.startswith(("kaiming", "binary")) else "default", "default"),
    ):
        if value != neutral:
            raise ConfigError(
                (
                    key,
                    f"{value} tells the outputs of a weight from its inputs, and {len(names)} weights here lie "
                    f"[inputs, outputs], such as {names[0]}; write {key}={neutral}, or take model=opt or model=llama",
                )
            )


def _sparse(
    trajectory: Trajectory, shapes: Mapping[str, tuple[int, ...]], still: Sequence[str]
) -> Trajectory:
    """The training with the masks that its policy starts with, where it has one that changes them.

    Raises:
        ConfigError: a tensor whose mask would change is frozen.
    """
    policy = trajectory.recipe.policy
    if policy is None:
        return trajectory
    fixed = [name for name in shapes if name in still]
    if fixed:
        raise ConfigError(
            (
                "training.freeze",
                f"sparse_training changes which weights of {', '.join(fixed)} are kept, and these are frozen; "
                "leave them out with pruning.exclude, or do not freeze them",
            )
        )
    return dataclasses.replace(trajectory, masks=policy.start(shapes, trajectory.recipe.seeds["mask"]))


def _retraining_steps(config: schema.Config, dense: Trajectory) -> tuple[int, int, int]:
    """Where retraining rewinds to, and the step counters between which it runs."""
    start, horizon = dense.first_step, dense.horizon
    rewind_to = _step("rewind.to", config.rewind.to, dense, 0, horizon - 1)
    if 0 < rewind_to < start:
        raise ConfigError(
            (
                "rewind.to",
                f"{config.rewind.to} is step {rewind_to}, within the pre-training of {start} steps; "
                "0 stands for its end, later steps for those of the dense training",
            )
        )
    rewind_to = max(rewind_to, start)
    first_step = horizon if config.rewind.technique == "fine_tune" else rewind_to
    length = config.rewind.length
    end = first_step + (length.steps(dense.steps_per_epoch) if length else horizon - rewind_to)
    if config.rewind.technique != "fine_tune" and end > horizon:
        raise ConfigError(
            (
                "rewind.length",
                f"{length} from step {rewind_to} ends at step {end}, beyond training.length="
                f"{config.training.length} (step {horizon}), where the schedule ends",
            )
        )
    return rewind_to, first_step, end


def _pretrained(config: schema.Config, trajectory: Trajectory) -> Trajectory:
    """The dense training, started from the end of `pretrain` with its step counter as far on.

    As in Paul et al. 2022 (arXiv:2206.01278): pre-train t steps, then load those weights, with a fresh optimizer
    and the schedule at step t. On other classes the output layer is drawn anew, as it would be without pre-training.
    """
    settings = config.pretrain
    if not settings.length:
        return trajectory
    dataset = settings.dataset or config.dataset
    if settings.subset is not None:
        dataset = dataset.model_copy(update={"subset": settings.subset})
    training = {"length": settings.length, "batch_size": settings.batch_size or config.training.batch_size}
    own = config.model_copy(
        update={
            "dataset": dataset,
            "optimizer": settings.optimizer or config.optimizer,
            "schedule": settings.schedule or config.schedule,
            "sparse_training": schema.SparseTraining(),
            "training": config.training.model_copy(update=training),
        }
    )
    data = load_data(Loading.of(own), trajectory.execution)
    theirs, ours = data.spec, trajectory.data.spec
    if theirs.shapes != ours.shapes:
        raise ConfigError(
            (
                "pretrain.dataset",
                f"it has examples of shape {dict(theirs.shapes)}, the training {dict(ours.shapes)}",
            )
        )
    before = dense(recipe(own, data, trajectory.execution))
    if before.horizon >= trajectory.horizon:
        raise ConfigError(
            (
                "pretrain.length",
                f"{settings.length} is {before.horizon} steps; it must be shorter than training.length, "
                f"{trajectory.horizon} steps, which counts it",
            )
        )
    point = FromState(before, before.horizon)
    start: Start = point
    if theirs.sizes != ours.sizes:
        head = new_head(
            config.model, before.recipe.interface, trajectory.recipe.interface, "pretrain.dataset"
        )
        start = Joined(point, head, config.resolved_seeds["init"])
    return dataclasses.replace(trajectory, start=start, first_step=before.horizon)


def load_data(loading: Loading, execution: precision.Execution) -> Data:
    """The prepared data set, on the device; the last ones stay in memory for further points of a sweep."""
    place, batch = open_place(loading.place), loading.evaluation_batch
    dataset = loading.dataset.model_dump(mode="json")
    wanted = canonical([dataset, str(place), loading.split_seed, str(execution.device), batch])
    if wanted not in _loaded:
        while len(_loaded) >= _MOST_LOADED:
            del _loaded[next(iter(_loaded))]
        _loaded[wanted] = prepare(
            loading.dataset,
            place,
            split_seed=loading.split_seed,
            device=execution.device,
            evaluation_batch=batch,
        )
    return _loaded[wanted]


_MOST_LOADED = 2
_loaded: dict[str, Data] = {}


def _step(where: str, duration: Duration, trajectory: Trajectory, lowest: int, highest: int) -> int:
    step = duration.steps(trajectory.steps_per_epoch)
    if not lowest <= step <= highest:
        raise ConfigError(
            (
                where,
                f"{duration} is step {step}; it must lie between {lowest} and {highest} "
                f"(training.length={trajectory.recipe.length}, {trajectory.steps_per_epoch} steps an epoch)",
            )
        )
    return step


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Config paths at which two plain configs differ, with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found += differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if ours == theirs else [f"{path} ({theirs!r} there, {ours!r} now)"]
