"""The schema of `lth analyze`: where to look, and a section for each question that has a folder here."""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from lth_cli import analyses
from lth_cli.config.schema import DataPlace
from lth_cli.config.values import DEVICE, Interval, Section


def names() -> list[str]:
    """Every analysis: the folders of this room that have settings, in alphabetical order."""
    return sorted(
        path.parent.name for folder in analyses.__path__ for path in Path(folder).glob("*/settings.py")
    )


def sections() -> dict[str, type[Section]]:
    """The settings of each question, by its name. Imports no study, and so no torch."""
    return {
        name: importlib.import_module(f"{analyses.__name__}.{name}.settings").Settings for name in names()
    }


if TYPE_CHECKING:
    Question = Any
else:
    Question = Annotated[functools.reduce(operator.or_, sections().values()), Field(discriminator="name")]


class Checkpoints(Section):
    """How much work a crash may cost where states have to be trained."""

    every: Interval = Field(
        "60s", description="Steps (500it, 1ep) or time (60s, 10min) between resume points."
    )


class Analyze(Section):
    """Everything that says what `lth analyze` does."""

    runs_dir: Annotated[str, Field(min_length=1)] = Field(
        "runs", description="Folder of runs (LTH_RUNS_DIR)."
    )
    device: Annotated[str, Field(pattern=DEVICE)] = Field(
        "auto", description="For runs whose own device this machine does not have; others keep theirs."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto", description="Compute threads, where `device` is used."
    )
    data: DataPlace = DataPlace()
    checkpoint: Checkpoints = Checkpoints()
    analysis: Question


def known_keys(name: str | None = None) -> Iterator[tuple[str, FieldInfo]]:
    """Every key of `lth analyze` with its field; those of one question, or of all."""
    for key, field in Analyze.model_fields.items():
        if key in ("data", "checkpoint"):
            section: type[Section] = DataPlace if key == "data" else Checkpoints
            yield from ((f"{key}.{inner}", found) for inner, found in section.model_fields.items())
        elif key == "analysis":
            for asked, questions in sections().items():
                if name in (None, asked):
                    yield from (
                        (f"analysis.{inner}", found) for inner, found in questions.model_fields.items()
                    )
        else:
            yield key, field
