"""What differs between runs: keys of the config, versions and machine, commits, and code of a person's own."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lth_cli.config.errors import LthError
from lth_cli.config.named import SURROUNDINGS, flat
from lth_cli.report.layout import Column, print_table
from lth_cli.store.runs import Run

Section = Literal["command", "config", "environment", "code"]
ABSENT = None
"""Where a run has no such key."""
_WHOLE = 24  # cells: values up to here are shown whole, in further tables where there is no room beside
_NAMES = ("name",)  # of the run: differs always
_PLACES = ("name", "device", "threads", *SURROUNDINGS)  # say nothing of the experiment


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all of some runs.

    Attributes:
        section: what kind of thing.
        key: its dotted name.
        values: one a run, in their order; None where a run has none.
    """

    section: Section
    key: str
    values: tuple[Any, ...]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Everything that is not the same in all of these runs, config first. Raises Damaged, ReadFailed, NewerFormat."""
    told = [_told(run) for run in runs]
    found = []
    for section, key in dict.fromkeys(name for one in told for name in one):
        values = tuple(one.get((section, key), ABSENT) for one in told)
        if len({json.dumps(value, sort_keys=True) for value in values}) > 1:
            found.append(Difference(section, key, values))
    order = ("command", "config", "environment", "code")
    return sorted(found, key=lambda one: order.index(one.section))


def _told(run: Run) -> dict[tuple[Section, str], Any]:
    info = run.info
    told: dict[tuple[Section, str], Any] = {("command", "command"): info.get("kind")}
    if "source" in info:
        told["command", "masks of"] = info["source"].get("name")
    for key, value in flat(_complete(run.config)).items():
        if key not in _NAMES:
            told["config", key] = value
    for part in ("versions", "hardware"):
        told |= {("environment", f"{part}.{key}"): value for key, value in info.get(part, {}).items()}
    if info.get("git_commit"):
        commit, changed, _ = info["git_commit"].partition("+")
        told["code", "git_commit"] = commit[:12] + changed
    for name, module in own_modules(info).items():
        told["code", f"own code {name}"] = module["digest"][:12]
    for noted in info.get("own_code_git", ()):
        where = f"git of {noted['repository']}"
        told["code", f"{where}: commit"] = noted["commit"][:12] if noted["commit"] else None
        told["code", f"{where}: uncommitted"] = _uncommitted(noted)
    return told


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the keys that its release did not know yet, which are at their defaults."""
    from lth_cli.config.compose import validate

    try:
        return validate(config).model_dump(mode="json")
    except LthError:  # of another release, or its own code is not here: as it is
        return config


def beyond_experiment(run: Run) -> tuple[str, list[Difference]] | None:
    """How a run's config differs from the experiment file it came from, or from the defaults where it names none.

    Returns:
        What it is compared with, in words, and the differing keys with the value there and here; None where that
        file is not one of lth's.
    """
    from lth_cli.config.compose import compose, validate

    words = [str(word) for word in run.info.get("command") or ()]
    chosen = [word for word in words if word.startswith("experiment=")][-1:]
    if any("--config-dir" in word for word in words) or "," in "".join(chosen):
        return None
    try:
        there = flat(validate(compose(str(run.info["kind"]), chosen)).model_dump(mode="json"))
    except LthError:
        return None
    here = flat(_complete(run.config))
    rows = [
        Difference("config", key, (there.get(key, ABSENT), here.get(key, ABSENT)))
        for key in dict.fromkeys([*there, *here])
        if key.partition(".")[0] not in _PLACES and there.get(key, ABSENT) != here.get(key, ABSENT)
    ]
    return chosen[0] if chosen else "the defaults", rows


def own_modules(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The modules of a person's own that a run was made with, by name: `text` and `digest`."""
    return {
        name: module
        for noted in info.get("own_code", {}).values()
        for name, module in noted["modules"].items()
    }


def _uncommitted(noted: Mapping[str, Any]) -> str | None:
    if noted.get("untracked"):
        return f"not in git: {', '.join(noted['untracked'])}"
    diff = noted.get("diff")
    if not diff:
        return "too much to keep" if diff is None else None
    lines = sum(line[:1] in "+-" and line[:3] not in ("+++", "---") for line in diff.splitlines())
    return f"{lines} lines changed ({hashlib.sha256(diff.encode()).hexdigest()[:8]})"


def code_differences(one: Run, other: Run) -> dict[str, str]:
    """How the text of each module of a person's own differs, as a unified diff, where its content does."""
    ours, theirs = own_modules(one.info), own_modules(other.info)
    found = {}
    for name in sorted(ours.keys() | theirs.keys()):
        before, after = (modules.get(name, {"text": "", "digest": None}) for modules in (ours, theirs))
        if before["digest"] != after["digest"]:
            found[name] = _unified(
                before["text"], after["text"], f"{one.name}: {name}", f"{other.name}: {name}"
            )
    return found


def _unified(before: str, after: str, ours: str, theirs: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), ours, theirs, lineterm="")
    return "\n".join(lines)


def uncommitted(run: Run) -> list[tuple[str, str]]:
    """What was changed and not committed of a person's own code when the run was made: repository and diff."""
    return [
        (noted["repository"], noted["diff"])
        for noted in run.info.get("own_code_git", ())
        if noted.get("diff")
    ]


def told(value: Any) -> str:
    """A value as people read it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def table(
    found: Iterable[Difference], headings: Sequence[str], members: Sequence[Sequence[int]]
) -> list[Column]:
    """Differences as columns: the key, then a column a heading.

    Args:
        found: what differs.
        headings: of the columns.
        members: places of the runs that each column is of; several values are put together.
    """
    rows = list(found)
    columns = [Column("differs", [row.key for row in rows], right=False, repeated=True)]
    for heading, places in zip(headings, members, strict=True):
        cells = [" / ".join(dict.fromkeys(told(row.values[place]) for place in places)) for row in rows]
        whole = max(map(len, cells), default=0) <= _WHOLE
        columns.append(Column(heading, cells, right=False, whole=whole))
    return columns


def print_diff(one: Run, other: Run) -> None:
    """Everything that differs between two runs, values whole, and how the code does."""
    from rich.console import Console

    console = Console()
    found = differences([one, other])
    if not found:
        print(f"{one.name} and {other.name} are of the same config, environment and code.")
        return
    columns = table(found, [one.name, other.name], [[0], [1]])
    long = _too_long(columns, console.width) if console.is_terminal else set()
    short = [place for place in range(len(found)) if place not in long]
    if short:
        print_table([Column(c.title, [c.cells[place] for place in short], c.right) for c in columns])
    for place in sorted(long):
        key, ours, theirs = (column.cells[place] for column in columns)
        print(f"{key}\n  {one.name}: {ours}\n  {other.name}: {theirs}")
    for text in code_differences(one, other).values():
        print(f"\n{text}")
    for run in (one, other):
        for repository, diff in uncommitted(run):
            print(f"\nUncommitted in {repository} when {run.name} was made:\n{diff}")


def _too_long(columns: Sequence[Column], width: int) -> set[int]:
    """The rows, longest first, without which the table fits whole."""
    sizes = {
        place: sum(len(column.cells[place]) for column in columns) for place in range(len(columns[0].cells))
    }
    left = dict(sizes)

    def needed() -> int:
        return sum(max([len(c.title), *(len(c.cells[place]) for place in left)]) + 2 for c in columns)

    while left and needed() > width:
        del left[max(left, key=lambda place: left[place])]
    return sizes.keys() - left.keys()


def as_json(one: Run, other: Run) -> dict[str, Any]:
    """Everything `lth diff` tells, as plain values."""
    return {
        "runs": [one.name, other.name],
        "differences": [
            {"section": row.section, "key": row.key, "values": list(row.values)}
            for row in differences([one, other])
        ],
        "code": code_differences(one, other),
        "uncommitted": {run.name: dict(uncommitted(run)) for run in (one, other)},
    }
