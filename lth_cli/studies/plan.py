"""From a study and a profile to steps and their points: overrides, names of runs, what each builds on. Pure."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.named import SURROUNDINGS
from lth_cli.config.trials import drawn_trials, ranges_of
from lth_cli.studies.finding import Found
from lth_cli.studies.schema import Changes, Next, Profile

# Where and how, not what: no part of a study's folder, and given to every step that takes them.
_PLACES = ("device", "threads", *SURROUNDINGS)
_TAKES = {
    "train": _PLACES,
    "prune": _PLACES,
    "rewind": SURROUNDINGS,
    "analyze": ("runs_dir", "data", "device"),
}
_UNUSED = {"train": ("pruning", "rewind", "controls", "control", "rounds"), "prune": ("control", "rounds")}
_NOT_ONTO = ("pruning", "pretrain", "controls", *_PLACES)
"""What masks trained with the settings of another step take from their source all the same."""
_OF_STEP = re.compile(r"(?P<step>[a-z][a-z0-9_]*):(?P<override>[^:].*)", re.DOTALL)
_REFERENCE = re.compile(r"\{([a-z][a-z0-9_]*)(/?)\}")
TRIAL = "trial"
"""Label of a point of quasi-random values: which of them."""
ANSWER = re.compile(r"\{answer:([^{}]+)\}")
"""In overrides, where the folder of an answer or a run goes once it is there: the name of its point."""
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Point:
    """One run to be made, or one question to be asked.

    Attributes:
        step: it belongs to.
        labels: swept keys and their values, and those of the step's own; those of what it builds on too.
        overrides: as a person would type them.
        name: of its run; of a question, its place in the plan.
        sources: runs that are retrained (the first) or asked about, by name.
        refers: runs and questions that its overrides name.
    """

    step: str
    labels: Mapping[str, str]
    overrides: tuple[str, ...]
    name: str
    sources: tuple[str, ...] = ()
    refers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStep:
    """A step of the plan.

    Attributes:
        name: of the step.
        command: that is run.
        points: in order; of a step that branches, what every point of it starts from.
        next: says what comes next, of a step that branches.
    """

    name: str
    command: str
    points: tuple[Point, ...]
    next: Next | None = None


@dataclass(frozen=True)
class StudyPlan:
    """A study of one size, as it will be run.

    Attributes:
        found: the study.
        profile: its name.
        folder: name below `runs/studies/NAME/`, of the profile and what else was typed.
        steps: in order.
        typed: what was typed beside the profile.
    """

    found: Found
    profile: str
    folder: str
    steps: tuple[PlannedStep, ...]
    typed: tuple[str, ...]

    @property
    def size(self) -> Profile:
        """What the study says of the profile."""
        return self.found.study.profiles[self.profile]


def make_plan(found: Found, typed: Sequence[str]) -> StudyPlan:
    """Lay out every step.

    Args:
        found: the study.
        typed: `profile=NAME`, `KEY=VALUE` for all steps that use the key, `STEP:KEY=VALUE` for one.

    Raises:
        RequestError: there is no such profile or step, or a reference names no run.
    """
    study = found.study
    chosen = [text.partition("=")[2] for text in typed if text.startswith("profile=")]
    profile = chosen[-1] if chosen else next(iter(study.profiles))
    if profile not in study.profiles:
        raise RequestError(
            f"profile: study {found.name} has none {profile!r}; there are: {', '.join(study.profiles)}"
        )
    if broken := [text for text in typed if "=" not in text]:
        raise RequestError(f"{broken[0]!r} is no override; write KEY=VALUE or STEP:KEY=VALUE")
    ours = [text for text in typed if not text.startswith("profile=")]
    size = study.profiles[profile]
    own, common = _by_step(found, ours)
    seeds = [text for text in common if text.startswith("seed=")]
    swept = {"seed": seeds[-1].partition("=")[2].strip("[]").split(",")} if seeds else {}
    common = [text for text in common if not text.startswith("seed=")]
    settings = sorted(text for text in ours if _key(text) not in _PLACES)
    digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]
    folder = f"{profile}-{digest}" if settings else profile
    _refuse_unused(found, common, bool(seeds))
    planned: dict[str, PlannedStep] = {}
    settings_of: dict[str, list[str]] = {}
    for name, step in study.steps.items():
        needed = [*step.builds_on, *([] if step.onto is None else [step.onto])]
        if name in size.without or any(other not in planned for other in needed):
            continue
        changes = size.steps.get(name, Changes())
        shared = [*study.overrides, *size.overrides, *common]
        overrides = _last_of_each(
            [
                *(text for text in shared if _used(step.command, text)),
                *(text for text in settings_of.get(step.onto or "", ()) if _key(text) not in _NOT_ONTO),
                *step.overrides,
                *changes.overrides,
                *(text for text in common if _used(step.command, text) and _key(text) in _PLACES),
                *own.get(name, ()),
            ]
        )
        settings_of[name] = overrides
        sweep = {key: (swept | size.sweep).get(key, values) for key, values in step.sweep.items()}
        sweep |= {key: values for key, values in swept.items() if key in step.sweep}
        sweep |= changes.sweep
        prefix = f"{found.name}-{folder}-{name}"
        sources = _sources([planned[other] for other in step.builds_on], step.command, step.ask)
        combinations = _combinations(name, sweep, changes.trials or step.trials)
        if len(combinations) * len(sources) > _MOST_POINTS:
            raise RequestError(f"steps.{name}: more than {_MOST_POINTS:,} points")
        referred = {other: planned[other] for other in step.builds_on}
        points = []
        for labels, runs in sources:
            for combination, tried in combinations:
                if step.command in ("train", "prune") and labels | combination != combination | labels:
                    continue  # it builds on a run of another seed
                all_labels = {**labels, **step.labels, **combination}
                swept_here = {key: value for key, value in combination.items() if key != TRIAL} | tried
                typed_here = [*overrides, *(f"{key}={value}" for key, value in swept_here.items())]
                filled, refers = _refer(name, typed_here, all_labels, referred)
                points.append(
                    Point(name, all_labels, tuple(filled), _run_name(prefix, all_labels), runs, refers)
                )
        branching = step.next
        if branching is not None and changes.next:
            branching = Next(**{"function": branching.function, **branching.settings, **changes.next})
        planned[name] = PlannedStep(name, step.command, tuple(points), branching)
    return StudyPlan(found, profile, folder, tuple(planned.values()), tuple(ours))


def _combinations(
    step: str, sweep: Mapping[str, Sequence[str]], trials: int | None
) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Every combination of swept values: labels, and what else is set, the values of a trial.

    Raises:
        ConfigError: ranges without a number of trials, or the reverse.
    """
    ranges = ranges_of(sweep)
    if (trials is None) != (not ranges):
        raise ConfigError(
            (
                f"steps.{step}.trials",
                "goes with ranges in `sweep`, such as tag(log,interval(1e-4,1)), and they with it",
            )
        )
    listed = {key: values for key, values in sweep.items() if key not in ranges}
    plain = [dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())]
    if trials is None:
        return [(labels, {}) for labels in plain]
    drawn = drawn_trials(ranges, trials)
    return [({**labels, TRIAL: str(number)}, tried) for labels in plain for number, tried in enumerate(drawn)]


def branch(point: Point, more: Sequence[str]) -> Point:
    """A point of a step that branches: its overrides with those that come next."""
    chosen = {text.partition("=")[0].lstrip("+"): text.partition("=")[2].strip("[]") for text in more}
    name = _run_name(point.name, chosen)
    return Point(
        point.step, {**point.labels, **chosen}, (*point.overrides, *more), name, point.sources, point.refers
    )


def _by_step(found: Found, typed: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    own: dict[str, list[str]] = {}
    common = []
    for text in typed:
        key = text.partition("=")[0]
        match = _OF_STEP.fullmatch(text) if ":" in key else None
        if match is None:
            common.append(text)
        elif match["step"] not in found.study.steps:
            raise ConfigError((text, f"there is no such step; there are {', '.join(found.study.steps)}"))
        else:
            own.setdefault(match["step"], []).append(match["override"])
    return own, common


def _refuse_unused(found: Found, common: Sequence[str], seeds: bool) -> None:
    """Refuse what no step would take. Raises ConfigError."""
    steps = found.study.steps.values()
    wrong = [text for text in common if not any(_used(step.command, text) for step in steps)]
    problems = [
        (text, "no step of the study takes it; write STEP:KEY=VALUE for one that does") for text in wrong
    ]
    if seeds and not any("seed" in step.sweep for step in steps):
        problems.append(("seed", "no step of the study sweeps it"))
    if problems:
        raise ConfigError(*problems)


def _key(override: str) -> str:
    """`+data.root=X` is of `data`; of an override for a step, that key."""
    text = override.partition("=")[0]
    return re.split(r"[.@]", text.rpartition(":")[2].lstrip("+~"), maxsplit=1)[0]


def _used(command: str, override: str) -> bool:
    """Whether a step takes an override that was meant for all of them."""
    key = _key(override)
    if key in _PLACES:
        return key in _TAKES[command]
    return command in _UNUSED and key not in _UNUSED[command]


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Of overrides of the same key the last, at the place of the first, so that Hydra sees each once."""
    found: dict[str, str] = {}
    for text in overrides:
        found[text.partition("=")[0].lstrip("+")] = text
    return list(found.values())


def _sources(
    steps: Sequence[PlannedStep], command: str, ask: str
) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """What points of a step build on: labels and names of runs."""
    if command in ("train", "prune"):
        return (
            [(dict(point.labels), ()) for point in steps[0].points] if steps and ask == "each" else [({}, ())]
        )
    points = steps[0].points
    if command == "rewind" or ask == "each":
        return [(dict(point.labels), (point.name,)) for point in points]
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for step in steps:
        for point in step.points:
            alike = tuple((key, value) for key, value in point.labels.items() if not _is_seed(key))
            groups.setdefault(alike, []).append(point.name)
    return [(dict(labels), tuple(runs)) for labels, runs in groups.items()]


def _is_seed(key: str) -> bool:
    return key == "seed" or key.startswith("seeds.")


def _refer(
    step: str, overrides: Sequence[str], labels: Mapping[str, str], known: Mapping[str, PlannedStep]
) -> tuple[list[str], tuple[str, ...]]:
    """Overrides with the names of runs in the place of `{step}`: those whose swept values agree with the point's.

    In the place of a step of analyze, and of `{step/}`, comes the mark of `ANSWER`.
    """
    refers: list[str] = []

    def runs(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise ConfigError((f"steps.{step}", f"{match[0]} names no step in its `from`"))
        fitting = [
            point.name
            for point in known[match[1]].points
            if all(point.labels.get(key, value) == value for key, value in labels.items())
        ]
        if not fitting:
            raise ConfigError((f"steps.{step}", f"{match[0]} has no run with {dict(labels)}"))
        refers.extend(fitting)
        if known[match[1]].command != "analyze" and not match[2]:
            return ",".join(fitting)
        if len(fitting) > 1:
            raise ConfigError((f"steps.{step}", f"{match[0]} has {len(fitting)} folders for {dict(labels)}"))
        return f"{{answer:{fitting[0]}}}"

    filled = [_REFERENCE.sub(runs, text) for text in overrides]
    return filled, tuple(dict.fromkeys(refers))


def _run_name(prefix: str, labels: Mapping[str, str]) -> str:
    parts = [f"{key.split('@')[0].replace('/', '.').split('.')[-1]}_{value}" for key, value in labels.items()]
    slugs = [re.sub(r"[^A-Za-z0-9.+]+", "_", part).strip("_") for part in parts]
    name = "-".join([prefix, *slugs])
    return name if len(name) <= 100 else f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
