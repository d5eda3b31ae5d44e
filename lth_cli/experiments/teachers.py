"""From the names of teachers to their states: rounds of other runs, weight files, weights of torchvision."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.distilling import RELATIVE, is_file
from lth_cli.config.errors import ConfigError, LthError, RequestError
from lth_cli.config.references import Reference
from lth_cli.config.spec import Interface, Spec
from lth_cli.config.values import Component
from lth_cli.experiments.plan import NamedTeacher, Plan
from lth_cli.experiments.recorded import open_reference, score
from lth_cli.experiments.session import keep_state, stored_config
from lth_cli.models.build import build
from lth_cli.objectives.build import make_objective
from lth_cli.store.files import digest, remove_tree, writing
from lth_cli.store.runs import Run, list_runs
from lth_cli.store.states import State
from lth_cli.store.sweeps import find_sweep
from lth_cli.store.tensors import content_digest
from lth_cli.store.weights import read_weights
from lth_cli.training.engine import Engine
from lth_cli.training.trajectory import FromState, Known, Teacher

_KEY = "distillation.teachers"


def with_teachers(plan: Plan, run: Run | None = None, source: Run | None = None) -> Plan:
    """A plan whose trainings have the teachers of its config.

    Args:
        plan: checked but for its teachers.
        run: the run that is gone on with. It keeps its teachers, whatever has become of where they came from.
        source: a run whose config this plan's was made from, and whose teachers it shares where it names the same.

    Raises:
        ConfigError: no such teacher, or one that does not fit the data.
        RequestError: a run that cannot be opened.
    """
    section = plan.config.distillation
    if not section.teachers:
        return dataclasses.replace(plan, teachers=())
    refuse_as_student(plan.config)
    _check_cache(plan)
    kept = {**_kept(source), **_kept(run)}
    found: list[NamedTeacher] = []
    for name in section.teachers:
        if name not in RELATIVE:
            found += kept.get(name) or _find(name, plan)
    for named in found:
        _check_fit(named.label, named.teacher, plan)
    count = len(found) + sum(name in RELATIVE for name in section.teachers)
    if section.sample is not None and section.sample > count:
        raise ConfigError(
            (
                "distillation.sample",
                f"{section.sample} cannot be drawn from {count} teacher{'s' * (count > 1)}",
            )
        )
    _check_patches(found, plan)
    taught = dataclasses.replace(plan, teachers=tuple(found))
    return dataclasses.replace(taught, dense=taught.distilled(taught.dense, {}))


def _check_cache(plan: Plan) -> None:
    """Refuse to keep answers where there are none for a whole batch, or too many. Raises ConfigError."""
    if not plan.config.distillation.cache:
        return
    recipe, problem = plan.dense.recipe, ""
    if plan.config.distributed.processes > 1:
        problem = "not with distributed.processes above 1: each asks about its own part"
    elif not recipe.update.whole_batches:
        target = plan.config.update.target
        problem = f"{target} shows a model parts of a batch, and answers are kept for whole ones; write false"
    elif recipe.objective.answers == "token":
        tokens, classes = recipe.interface.output_shape
        size = recipe.horizon * recipe.batching.size * tokens * classes * 4 / 1e9
        problem = f"answers are kept for examples, not for tokens: up to {size:,.1f} GB here; write false"
    if problem:
        raise ConfigError(("distillation.cache", problem))


def _check_patches(found: Sequence[NamedTeacher], plan: Plan) -> None:
    """Refuse networks that cannot be shown some patches, or have no features. Raises ConfigError."""
    section = plan.config.distillation
    if section.patches is None and section.loss != "features":
        return
    what = "distillation.loss" if section.patches is None else "distillation.patches"
    if (
        section.patches_by == "random"
        and section.patches is not None
        and plan.config.distributed.processes > 1
    ):
        raise ConfigError(("distillation.patches_by", "random not with distributed.processes above 1"))
    recipe = plan.dense.recipe
    student = build(plan.config.model, recipe.interface, init_seed=0)
    networks = {"the student": student}
    for named in found:
        section_of = schema.Model.model_validate(dict(named.teacher.model))
        networks[named.label] = build(section_of, named.teacher.interface(recipe.interface), init_seed=0)
    for label, network in networks.items():
        if not hasattr(network, "class_attention"):
            problem = f"{label} ({type(network).__name__}) exposes no class attention; model=vit_small and deit_tiny do"
            raise ConfigError((what, problem))
    grids = {label: cast(tuple[int, int], network.grid) for label, network in networks.items()}
    if section.patches is not None and len(set(grids.values())) > 1:
        told = ", ".join(f"{label} {rows} x {columns}" for label, (rows, columns) in grids.items())
        raise ConfigError(
            (what, f"student and teachers must cut images into the same grid of patches: {told}")
        )


def refuse_as_student(config: schema.Config) -> None:
    """Refuse a training that no teacher can teach. Raises ConfigError."""
    if make_objective(config.objective, 0.0).answers is None:
        raise ConfigError((_KEY, f"teachers answer with logits; {config.objective.target} has none"))


def keep_teachers(plan: Plan, run: Run, engine: Engine) -> None:
    """Keep the states of a plan's teachers in the run, so that it can always be gone on with and repeated."""
    assert plan.teachers is not None
    noted: dict[str, list[dict[str, Any]]] = {}
    for number, named in enumerate(plan.teachers):
        named.provide(engine)
        of, folder = named.teacher.of, run.teacher(number)
        note = {"label": named.label, "folder": number, "teacher": named.teacher.description}
        if not folder.finished or folder.summary["teacher"] != named.teacher.description:
            # A killed process may have kept what the name stood for then.
            with writing(folder.folder):
                remove_tree(folder.folder)
            description = keep_state(engine, folder, of)
            folder.write_summary({"trajectory": of.parent.identity, "description": description, **note})
        _adopt(engine, run=run, number=number)
        noted.setdefault(named.name, []).append(note)
    if run.info.get("teachers", {}) != noted:
        run.update(teachers=noted)


def _kept(run: Run | None) -> dict[str, list[NamedTeacher]]:
    """The teachers that a run keeps, by the name they were asked for.

    Raises:
        RequestError: own code of one of them is another now.
    """
    if run is None:
        return {}
    for notes in run.info.get("teachers", {}).values():
        for note in notes:
            now, then = Teacher.noted(note["teacher"]).description, note["teacher"]
            if now.get("sources") != then.get("sources"):
                modules = sorted({**now.get("sources", {}), **then.get("sources", {})})
                raise RequestError(
                    f"the code of your own of {note['label']}, which teaches {run.name}, has changed: "
                    f"{', '.join(modules)}. Put the former back, or train under another name="
                )
    return {
        name: [
            NamedTeacher(
                name,
                str(note["label"]),
                Teacher.noted(note["teacher"]),
                functools.partial(_adopt, run=run, number=int(note["folder"])),
            )
            for note in notes
        ]
        for name, notes in run.info.get("teachers", {}).items()
    }


def _adopt(engine: Engine, *, run: Run, number: int) -> None:
    """Let the store have a teacher that a run keeps."""
    folder = run.teacher(number)
    summary = folder.summary
    engine.uses(str(summary["trajectory"]))
    for path in folder.checkpoints().values():
        engine.adopt(str(summary["trajectory"]), path, summary["description"])


def _find(name: str, plan: Plan) -> list[NamedTeacher]:
    """What a name stands for now. Raises ConfigError, RequestError."""
    if is_file(name):
        return [_from_file(name, plan)]
    if name.startswith("torchvision:"):
        return [_from_torchvision(name, plan)]
    config = plan.config
    if name in ("latest", "best"):
        candidates = list_runs(Path(config.runs_dir))[0]
        labels = _chosen(name, [run for run in candidates if _suits(run, config)], name)
    elif name.startswith("sweep:"):
        sweep_name, _, which = name.removeprefix("sweep:").partition("/")
        if which not in ("", "latest", "best"):
            raise ConfigError((_KEY, f"{name!r}: after the sweep stands latest, best or nothing"))
        sweep = find_sweep(Path(config.runs_dir), sweep_name)
        names = {point.run for point in sweep.points()}
        runs = [run for run in list_runs(sweep.runs_dir)[0] if run.name in names]
        labels = _chosen(which, [run for run in runs if _finished(run)], name)
    else:
        labels = [name]
    return [_from_run(name, label, plan) for label in labels]


def _chosen(which: str, runs: Sequence[Run], name: str) -> list[str]:
    """References of all of some finished runs, of the latest, or of the best round."""
    if not runs:
        raise ConfigError((_KEY, f"{name!r}: there is no finished run to learn from"))
    if which == "":
        return [str(run.path) for run in runs]
    if which == "latest":
        return [str(max(runs, key=lambda run: (str(run.info["finished"]), run.name)).path)]
    rounds = [(run, round_) for run in runs for round_ in run.rounds() if round_.finished]
    run, round_ = max(rounds, key=lambda found: (score(*found), -found[1].number))
    return [f"{run.path}:{round_.number}"]


def _finished(run: Run) -> bool:
    try:
        return bool(run.info["state"] == "finished")
    except LthError:  # damaged; lth verify tells
        return False


def _suits(run: Run, config: schema.Config) -> bool:
    """Whether a run is finished, of the same objective, and of the same classes."""
    try:
        theirs = stored_config(run)
        alike = theirs.objective.target == config.objective.target
        return _finished(run) and alike and not _other_classes(theirs.dataset, config.dataset)
    except LthError:
        return False


def _from_run(name: str, text: str, plan: Plan) -> NamedTeacher:
    reference = Reference.parse(text)
    config = plan.config
    recorded = open_reference(
        reference,
        Path(config.runs_dir),
        config,
        trust=config.distillation.trust,
        remedy="distillation.trust=true",
    )
    step = recorded.step(reference.step)
    recorded.check(step)
    teacher = fitted(recorded.label, FromState(recorded.trajectory, step), recorded.plan, plan)
    return NamedTeacher(name, f"{recorded.label}@{step}it", teacher, recorded.adopt)


def fitted(label: str, of: FromState, theirs: Plan, plan: Plan) -> Teacher:
    """A state as the teacher of another plan's students.

    Args:
        label: of the state, for errors.
        of: the state.
        theirs: the plan that it was trained under.
        plan: of the students.

    Raises:
        ConfigError: another objective, other classes, or as many of which nobody says that they are the same; of
            tokens, another vocabulary.
    """
    there, here = theirs.config.objective.target, plan.config.objective.target
    if there != here:
        raise ConfigError((_KEY, f"{label} was trained for {there}, the student is for {here}"))
    spec, ours = theirs.dense.data.spec, plan.dense.data.spec
    by_token = plan.dense.recipe.objective.answers == "token"
    other = "" if by_token else _other_classes(theirs.config.dataset, plan.config.dataset)
    if other and not plan.config.distillation.same_classes:
        raise ConfigError(
            (
                _KEY,
                f"{label} was trained on other classes: {other}. If they are the same, in the same order, "
                "say so: distillation.same_classes=true",
            )
        )
    if by_token and spec.sizes != ours.sizes:
        raise ConfigError((_KEY, f"{label} has tokens {_sizes(spec)}, the student {_sizes(ours)}"))
    if not by_token and spec.classes != ours.classes:
        raise ConfigError(
            (
                _KEY,
                f"{label} tells {spec.classes} classes apart, the student {ours.classes}; both must have the same",
            )
        )
    scale, shift = _affine(plan.config.dataset.normalize, theirs.config.dataset.normalize)
    shape = theirs.dense.recipe.interface.input_shape
    teacher = Teacher(of, theirs.config.model.model_dump(mode="json"), shape, scale, shift)
    _check_fit(label, teacher, plan)
    return teacher


def _sizes(spec: Spec) -> str:
    return ", ".join(f"{name} {size}" for name, size in sorted(spec.sizes.items()))


def _other_classes(theirs: schema.Dataset, ours: schema.Dataset) -> str:
    """How two data sets differ in what decides their classes; empty where they do not."""
    there, here = (
        {
            "dataset._target_": dataset.target.rpartition(".")[2],
            "dataset.path": dataset.arguments.get("path"),
            "dataset.subset.classes": dataset.subset.classes,
            "dataset.rotation_labels": dataset.rotation_labels,
        }
        for dataset in (theirs, ours)
    )
    return "; ".join(
        f"{key} {there[key]} there, {here[key]} here" for key in there if there[key] != here[key]
    )


def _affine(
    ours: schema.Normalize | None, theirs: schema.Normalize | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """What turns inputs normalised our way into theirs, by channel; None where they are the same."""
    if ours == theirs:
        return None, None
    here, there = (
        ((0.0,), (1.0,)) if found is None else (tuple(found.mean), tuple(found.std))
        for found in (ours, theirs)
    )
    channels = max(len(here[0]), len(there[0]))
    (m, s), (mean, std) = (
        tuple(values * channels if len(values) == 1 else values for values in pair) for pair in (here, there)
    )
    scale = tuple(one / other for one, other in zip(s, std, strict=True))
    return scale, tuple((one - other) / width for one, other, width in zip(m, mean, std, strict=True))


def _from_file(name: str, plan: Plan) -> NamedTeacher:
    """A network whose weights lie in a file, fed as the student is."""
    try:
        tensors = read_weights(Path(name).expanduser())
    except RequestError as error:
        raise ConfigError((_KEY, str(error))) from error
    model = plan.config.distillation.model
    section = plan.config.model if model is None else _model(model)
    interface = plan.dense.recipe.interface
    network = build(section, interface, init_seed=0)
    return _imported(
        name, tensors, network, section.model_dump(mode="json"), interface.input_shape, None, None
    )


def _model(component: Component) -> schema.Model:
    return schema.Model.model_validate(component.model_dump(mode="json"))


def _from_torchvision(name: str, plan: Plan) -> NamedTeacher:
    """A classifier of torchvision with its published weights, fed images of the size they were trained on."""
    import torchvision  # a second, which only who asks for it waits

    if plan.config.objective.target != schema.CLASSIFICATION:
        raise ConfigError(
            (_KEY, f"{name} classifies images; the student is for {plan.config.objective.target}")
        )
    architecture, _, which = name.removeprefix("torchvision:").partition("/")
    try:
        weights = torchvision.models.get_model_weights(architecture)[which or "DEFAULT"]
    except (ValueError, KeyError) as error:
        raise ConfigError((_KEY, f"torchvision has no weights {name.partition(':')[2]!r}")) from error
    classes, ours = len(weights.meta["categories"]), plan.dense.data.spec.classes
    if classes != ours:
        raise ConfigError(
            (_KEY, f"{name} tells {classes} classes apart, the student {ours}; both must have the same")
        )
    shape = plan.dense.data.spec.input_shape
    if len(shape) != 3:
        raise ConfigError((_KEY, f"{name} sees images, the student inputs of shape {shape}"))
    transforms = weights.transforms()
    seen = schema.Normalize(mean=list(transforms.mean), std=list(transforms.std))
    size = (3, int(transforms.crop_size[0]), int(transforms.crop_size[0]))
    section = schema.Model.model_validate(
        {"_target_": "lth_cli.models.torchvision_model.torchvision_model", "name": architecture}
    )
    try:
        tensors = weights.get_state_dict(progress=False)
    except Exception as error:
        raise RequestError(f"the weights of {name} cannot be downloaded: {error}") from error
    network = build(section, Interface.classifier(size, classes), init_seed=0)
    known = {
        key: value for key, value in tensors.items() if key in network.state_dict()
    }  # not of auxiliary heads
    scale, shift = _affine(plan.config.dataset.normalize, seen)
    return _imported(name, known, network, section.model_dump(mode="json"), size, scale, shift)


def _imported(
    name: str,
    tensors: Mapping[str, Tensor],
    network: nn.Module,
    model: dict[str, Any],
    input_shape: tuple[int, ...],
    scale: tuple[float, ...] | None,
    shift: tuple[float, ...] | None,
) -> NamedTeacher:
    """Weights from outside, as a state of a training of which nothing else is known."""
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        told = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ConfigError(
            (
                _KEY,
                f"{name!r} does not fit the model it is for: {told[:300]} (distillation.model names another)",
            )
        ) from error
    weights = {key: value.detach().clone() for key, value in network.named_parameters()}
    buffers = {key: value.detach().clone() for key, value in network.named_buffers()}
    description = {"imported": content_digest({**weights, **buffers}, {})}
    identity, state = digest(description), State(0, weights, buffers, {})

    def provide(engine: Engine) -> None:
        engine.uses(identity)
        if engine.store.load(identity, 0) is None:
            engine.store.save(identity, state, description)

    return NamedTeacher(
        name, name, Teacher(FromState(Known(identity), 0), model, input_shape, scale, shift), provide
    )


def _check_fit(label: str, teacher: Teacher, plan: Plan) -> None:
    """Refuse a teacher that cannot see what the student sees. Raises ConfigError."""
    interface = plan.dense.recipe.interface
    ours, theirs = interface.input_shape, tuple(teacher.input_shape)
    if ours == theirs:
        return
    images = len(ours) == len(theirs) == 3 and interface.input_dtype == "float32"
    if not images or (ours[0] != theirs[0] and ours[0] != 1):
        raise ConfigError(
            (
                _KEY,
                f"{label} sees inputs of shape {theirs}, the student {ours}; images of another size are scaled, "
                "and those of one channel repeated, nothing else can be made to fit",
            )
        )
