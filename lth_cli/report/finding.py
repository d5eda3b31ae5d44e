"""Which runs a person means: `model=resnet20 state=finished 'test_accuracy>0.9'`, and in which order."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError, RequestError
from lth_cli.report.facts import Facts, Key
from lth_cli.store.index import read_runs

_FILTER = re.compile(
    r"(?P<key>[A-Za-z_][A-Za-z0-9_.-]*)\s*(?P<sign><=|>=|!=|==|=|<|>)\s*(?P<value>.*)", re.DOTALL
)
_TIMES = ("created", "finished")


class Filter:
    """One condition on runs.

    Args:
        text: KEY=VALUE, or with !=, <, <=, >, >= in the place of =. A value may be a list, `seed=0,1`, of which one
            must hold, and a pattern, `name='imp-*'`; a number may be in per cent, `'test_accuracy>90%'`.

    Raises:
        RequestError: the text is no condition.
    """

    def __init__(self, text: str) -> None:
        found = _FILTER.fullmatch(text)
        if found is None:
            raise RequestError(
                f"{text!r} is no filter; write KEY=VALUE, for example model=resnet20, state=finished, "
                f"'test_accuracy>0.9', or a run's name after lth show, a sweep's after lth ls --sweep"
            )
        self.key, self._sign, self._value = (
            Key(found["key"]),
            found["sign"].replace("==", "="),
            found["value"],
        )
        if self._sign in ("=", "!="):
            return
        if self._value == "" or (found["key"] not in _TIMES and _number(self._value) is None):
            raise RequestError(f"{text!r} compares with {self._value!r}, which is no number")

    @property
    def negative(self) -> bool:
        """Whether a run without the key fulfils it."""
        return self._sign == "!="

    def holds(self, facts: Facts) -> bool:
        """Whether it is so of a run; what a run does not have fulfils nothing but !=."""
        value = self.key.of(facts)
        if self._sign == "=":
            return self._is(value)
        if self._sign == "!=":
            return not self._is(value)
        if self.key.name in _TIMES:
            return value is not None and _compare(self._sign, str(value)[: len(self._value)], self._value)
        number = _number(value)
        wanted = _number(self._value)
        return number is not None and wanted is not None and _compare(self._sign, number, wanted)

    def _is(self, value: Any) -> bool:
        if isinstance(value, list) and self.key.name in ("tags", "tag"):
            return any(self._is(one) for one in value) if value else self._value == ""
        return _equal(value, self._value) or any(_equal(value, one) for one in self._value.split(","))


def _equal(value: Any, wanted: str) -> bool:
    if value is None or isinstance(value, bool):
        return wanted.lower() in {None: ("", "null", "none"), True: ("true",), False: ("false",)}[value]
    if isinstance(value, int | float):
        return _number(wanted) == value
    if isinstance(value, list):
        return re.sub(r"\s|'", "", str(value)) == re.sub(r"\s|'", "", wanted)
    return value == wanted or fnmatch.fnmatchcase(str(value), wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None


def _compare(sign: str, ours: Any, theirs: Any) -> bool:
    return bool({"<": ours < theirs, "<=": ours <= theirs, ">": ours > theirs, ">=": ours >= theirs}[sign])


def find(
    runs_dir: Path, filters: Sequence[Filter], fault: Callable[[LthError], None], keys: Sequence[Key] = ()
) -> Iterator[Facts]:
    """The runs of a folder that fulfil all filters, by name, one at a time.

    Args:
        runs_dir: folder of runs.
        filters: conditions.
        fault: told what is wrong with those that cannot be read.
        keys: further names that are looked for in every run, so that one that no run has can be refused.

    Raises:
        RequestError: after the last run, where no run has what a filter or key names.
    """
    asked = [*(one.key for one in filters), *keys]
    for entry in read_runs(runs_dir):
        if isinstance(entry, LthError):
            fault(entry)
            continue
        facts = Facts(entry)
        for key in asked:
            if not key.found:
                key.of(facts)
        if all(one.holds(facts) for one in filters):
            yield facts
    for key in asked:
        key.check()


def order(value: Any) -> tuple[int, float, str]:
    """Where a value of any kind stands among others: numbers, then words, then what is not there."""
    if value is None or value in ("", []):
        return (2, 0.0, "")
    if isinstance(value, bool | int | float):
        return (0, float(value), "")
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return (1, 0.0, re.sub(r"\d+", lambda digits: digits.group().zfill(12), text))  # 2ep before 10ep
