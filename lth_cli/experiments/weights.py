"""Weights that the dense training starts from, taken from elsewhere: a folder, a file, a state of a run."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from lth_cli.config import extras
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.references import Reference
from lth_cli.experiments.plan import Plan, Taken
from lth_cli.experiments.recorded import open_reference
from lth_cli.models.weights import fit, renamed
from lth_cli.store.files import digest
from lth_cli.store.rounds import Round
from lth_cli.store.runs import Run
from lth_cli.store.states import State
from lth_cli.store.tensors import content_digest
from lth_cli.store.weights import read_weights
from lth_cli.training.engine import Engine
from lth_cli.training.freezing import chosen_tensors
from lth_cli.training.trajectory import FromState, Joined, Known

_KEY = "pretrain.weights"
_Shapes = dict[str, tuple[int, ...]]


def with_weights(plan: Plan, *runs: Run | None, kept_only: bool = False) -> Plan:
    """A plan whose dense training starts from the weights of its config.

    Args:
        plan: checked but for its weights and teachers.
        runs: the run that is gone on with, and those it is made from. They keep their weights, whatever has become of
            where these came from.
        kept_only: leave the plan as it is where none of them has the weights; its dense training is then unknown.

    Raises:
        ConfigError: no such weights, or they do not fit the model.
        RequestError: a run that cannot be opened.
    """
    name = plan.config.pretrain.weights
    if name is None:
        return plan
    model = plan.dense.recipe.build(init_seed=0)
    kept = [found for run in runs if run is not None and (found := _kept(run, name)) is not None]
    if kept_only and not kept:
        return plan
    taken, shapes = kept[0] if kept else _find(name, model, plan)
    anew = chosen_tensors(model, plan.config.pretrain.fresh, "pretrain.fresh")
    fitted = fit(model, {**shapes, **{name: plan.shapes[name] for name in anew}}, taken.label, _KEY)
    fresh = tuple(name for name in plan.shapes if name in fitted.fresh or name in anew)
    start = Joined(taken.of, fresh, plan.config.resolved_seeds["init"])
    told = []
    if fitted.fresh:
        told = [f"{_KEY}: drawn anew, as {taken.label} has none: {_some(fitted.fresh)}"]
    if fitted.unused:
        told.append(f"{_KEY}: not used of {taken.label}: {_some(fitted.unused)}")
    return dataclasses.replace(
        plan,
        dense=dataclasses.replace(plan.dense, start=start),
        taken=taken,
        warnings=(*plan.warnings, *told),
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _kept(run: Run, name: str) -> tuple[Taken, _Shapes] | None:
    """The weights that a run keeps, if it has those of this name.

    Raises:
        LthError: they are damaged.
    """
    note = run.info.get("weights")
    if note is None or note["name"] != name:
        return None
    folder = run.origin(0)
    if not folder.finished or folder.summary["trajectory"] != note["trajectory"]:
        return None  # a process was killed before it had them
    shapes = {key: tuple(weight.shape) for key, weight in folder.checkpoint(note["step"]).weights.items()}
    of = FromState(Known(note["trajectory"]), int(note["step"]))
    return Taken(name, str(note["label"]), of, functools.partial(_adopt, folder=folder)), shapes


def _adopt(engine: Engine, *, folder: Round) -> None:
    summary = folder.summary
    engine.uses(str(summary["trajectory"]))
    for path in folder.checkpoints().values():
        engine.adopt(str(summary["trajectory"]), path, summary["description"])


def _find(name: str, model: nn.Module, plan: Plan) -> tuple[Taken, _Shapes]:
    """What a name stands for now. Raises ConfigError, RequestError."""
    path = Path(name).expanduser()
    if path.exists() or "/" in name or path.suffix in (".safetensors", ".bin", ".pt", ".gguf"):
        weights = renamed(model, _read(path))
        description = {"imported": content_digest(weights, {})}
        identity, state = digest(description), State(0, weights, {}, {})

        def provide(engine: Engine) -> None:
            engine.uses(identity)
            if engine.store.load(identity, 0) is None:
                engine.store.save(identity, state, description)

        taken = Taken(name, name, FromState(Known(identity), 0), provide)
        return taken, {key: tuple(weight.shape) for key, weight in weights.items()}
    try:
        reference = Reference.parse(name)
    except ValueError as error:
        raise ConfigError((_KEY, str(error))) from None
    recorded = open_reference(reference, Path(plan.config.runs_dir), plan.config, trust=False)
    step = recorded.step(reference.step)
    recorded.check(step)

    def trained(engine: Engine) -> None:
        recorded.state(step, engine)

    known = FromState(Known(recorded.trajectory.identity), step)
    return Taken(name, f"{recorded.label}@{step}it", known, trained), dict(recorded.plan.shapes)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of a folder as transformers saves them. Raises ConfigError."""
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    if files:
        try:
            return {name: tensor for file in files for name, tensor in read_weights(file).items()}
        except RequestError as error:
            raise ConfigError((_KEY, str(error))) from error
    packed = sorted(path.glob("*.gguf"))
    if len(packed) == 1:
        return _unpacked(packed[0])
    raise ConfigError(
        (_KEY, f"{str(path)!r} has no weights: *.safetensors, pytorch_model*.bin, or one *.gguf")
    )


def _unpacked(path: Path) -> dict[str, Tensor]:
    """The tensors of a causal model in GGUF, as transformers reads them."""
    library = extras.transformers("weights in GGUF")
    try:
        model = library.AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # of many kinds, by format and by what is installed
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError((_KEY, f"{str(path)!r} cannot be read: {first}")) from error
    return dict(model.state_dict())
