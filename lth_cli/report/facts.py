"""What can be asked of a run by a short name: keys of its config, results of its last round, its tags and times."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.config.goals import words
from lth_cli.config.metrics import Metric
from lth_cli.config.named import flat, is_group, option_of
from lth_cli.store.index import Entry
from lth_cli.store.results import status

_MISSING = object()
_OWN = (
    "run",
    "command",
    "state",
    "created",
    "finished",
    "error",
    "goal",
    "tags",
    "note",
    "rounds",
    "steps_trained",
    "steps_reused",
    "path",
)
"""What a run knows beside its config, its results and what it notes of machine and versions."""
_ALSO = {"name": "run", "kind": "command", "tag": "tags"}
_CLOSE = 5
_named: dict[tuple[str, str, tuple[str, ...]], str] = {}


class Facts:
    """One run, asked by short names.

    Args:
        entry: the run.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @cached_property
    def state(self) -> str:
        """The state now."""
        return self.entry.state

    @cached_property
    def last(self) -> Mapping[str, Any]:
        """The results of its last round."""
        return self.entry.last

    @cached_property
    def headline(self) -> Metric:
        """The metric it is compared by."""
        return self.entry.metrics[0]

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The config by dotted keys."""
        return flat(self.entry.config)

    def own(self, key: str) -> Any:
        """One of what it knows beside config and results."""
        entry = self.entry
        known: dict[str, Callable[[], Any]] = {
            "run": lambda: entry.name,
            "command": lambda: entry.info.get("kind"),
            "state": lambda: self.state,
            "goal": lambda: told_goal(entry.config, self.last),
            "tags": lambda: entry.content["tags"],
            "note": lambda: entry.content["note"],
            "rounds": lambda: entry.rounds,
            "path": lambda: str(entry.path),
        }
        if key.startswith("steps_"):
            return sum(int(row.get(key) or 0) for row in entry.trainings)
        return known[key]() if key in known else entry.info.get(key)

    def option(self, group: str) -> str:
        """What a section is called, `resnet20`."""
        section, typed = self.entry.config[group], self.entry.info.get("command") or ()
        said = tuple(word for word in map(str, typed) if word.lstrip("+").startswith(f"{group}="))
        known = (group, json.dumps(section, sort_keys=True), said)
        if known not in _named:  # thousands of runs have few models
            _named[known] = option_of(group, section, said)
        return _named[known]

    def typed(self, key: str) -> Any:
        """The value of a key as it stands in the command, for what leaves no key in the config: `experiment`."""
        said = [str(word) for word in self.entry.info.get("command") or () if str(word).startswith(f"{key}=")]
        return said[-1].partition("=")[2] if said else _MISSING

    def keys(self) -> set[str]:
        """Everything that can be asked of it."""
        groups = {
            key for key, value in self.entry.config.items() if isinstance(value, dict) and is_group(key)
        }
        return {*_OWN, *groups, *self.flat, *self.last, *flat(_noted(self.entry))}


class Key:
    """A short name, found in one run after the other.

    Args:
        name: as typed: a column of results, a key of the config or the end of one, `tags`, `state`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.found = False
        self._path: list[str] | None = None
        self._seen: set[str] = set()

    def of(self, facts: Facts) -> Any:
        """The value in a run; None where it has none.

        Raises:
            RequestError: the name is the end of several keys.
        """
        value = self._of(facts)
        if value is _MISSING:
            if not self.found:
                self._seen |= facts.keys()
            return None
        if not self.found:
            self.found, self._seen = True, set()
        return value

    def check(self) -> None:
        """Refuse a name that no run had, after the last run was asked. Raises RequestError."""
        if not self.found and self._seen:
            raise RequestError(f"no run has {self.name!r}; {_close(self.name, self._seen)}")

    def metric(self, facts: Facts) -> Metric | None:
        """The metric that the name is a column of, in a run; None for all else."""
        column = self.name if self.name in facts.last else f"test_{self.name}"
        return next(
            (
                metric
                for metric in facts.entry.metrics
                if column.endswith(f"_{metric.name}") and column in facts.last
            ),
            None,
        )

    def _of(self, facts: Facts) -> Any:
        name, config = _ALSO.get(self.name, self.name), facts.entry.config
        if name in _OWN:
            return facts.own(name)
        if isinstance(config.get(name), dict) and is_group(name):
            return facts.option(name)
        places: tuple[Callable[[], Any], ...] = (
            lambda: facts.last.get(name, _MISSING),
            lambda: _at(config, name.split(".")),
            lambda: _MISSING if self._path is None else _at(config, self._path),
            lambda: facts.last.get(f"test_{name}", _MISSING),
            lambda: self._of_ending(facts.flat, name),
            lambda: _at(_noted(facts.entry), name.split(".")),
            lambda: facts.typed(name),
            lambda: self._of_ending(flat(_noted(facts.entry)), name),
        )
        return next((value for place in places if (value := place()) is not _MISSING), _MISSING)

    def _of_ending(self, values: Mapping[str, Any], name: str) -> Any:
        """The value of the key that ends so; the one nearest to the top, `optimizer.lr` before what lies deeper."""
        ending = [key for key in values if key.endswith(f".{name}")]
        if not ending:
            return _MISSING
        depth = min(key.count(".") for key in ending)
        nearest = [key for key in ending if key.count(".") == depth]
        if len(nearest) > 1:
            raise RequestError(f"{name!r} could be {', '.join(sorted(nearest))}; write one of them")
        self._path = nearest[0].split(".")
        return values[nearest[0]]


def told_goal(config: Mapping[str, Any], last: Mapping[str, Any]) -> str | None:
    """The goal of a run, and how its last round ended; None where it has none."""
    if config.get("until") is None:
        return None
    ended = status(last)
    if ended is None:
        return words(config["until"])
    steps = {"complete": "steps_to_goal", "infeasible": "diverged_at"}.get(ended)
    after = "" if steps is None else f" after {last[steps]:,} steps"
    return f"{words(config['until'])}: {ended}{after}"


def _noted(entry: Entry) -> dict[str, Any]:
    """What run.json notes of where and from what it ran."""
    keys = ("versions", "hardware", "git_commit", "seeds", "source", "repeatable")
    return {key: entry.info[key] for key in keys if key in entry.info}


def _at(values: Any, path: Iterable[str]) -> Any:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return _MISSING
        values = values[part]
    return _MISSING if isinstance(values, dict) and values else values


def _close(name: str, known: set[str]) -> str:
    endings: dict[str, str] = {}
    for key in sorted(known, key=len, reverse=True):
        endings[key.rpartition(".")[2]] = key
        endings[key] = key
    close = [endings[one] for one in difflib.get_close_matches(name, endings, n=_CLOSE, cutoff=0.6)]
    if close:
        return f"close to it: {', '.join(dict.fromkeys(close))}"
    return "there are keys of the config (model, optimizer.lr), results (test_accuracy, density), state, tags, seed"
