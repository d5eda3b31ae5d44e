"""The figure of `lth analyze analysis=dimension`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import finish, number
from lth_cli.store.analyses import Row


def draw(figure: Any, tables: dict[str, list[Row]], summary: dict[str, Any]) -> bool:
    """The estimate by the number of neighbours."""
    rows = tables["dimension"]
    axes = figure.add_subplot()
    axes.plot(
        [number(row, "neighbours") for row in rows], [number(row, "dimension") for row in rows], marker="o"
    )
    finish(axes, "neighbours", "intrinsic dimension")
    return True
