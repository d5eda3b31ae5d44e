"""The figure of `lth analyze analysis=connectivity`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, compared, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Error along every line, or loss; test solid and other splits dashed."""
    rows = tables["curves"]
    if not rows:
        return False
    axes = figure.add_subplot()
    what, unit, scale = compared(summary)
    ending = f"_{what}"
    splits = [column.removesuffix(ending) for column in rows[0] if column.endswith(ending)]
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    for index, pair in enumerate(pairs):
        line = [row for row in rows if (row["first"], row["second"]) == pair]
        for split in splits:
            axes.plot(
                [row["position"] for row in line],
                [scale * number(row, f"{split}{ending}") for row in line],
                color=f"C{index}",
                linestyle="-" if split == "test" else "--",
                label=f"{pair[0]} to {pair[1]}" if split == "test" and len(pairs) <= 8 else None,
            )
    finish(axes, "position on the line", f"{what}{unit}, {' and '.join(splits)} (test solid)")
    return True
