"""The figure of `lth analyze analysis=masks`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """What pairs of masks share against chance, and magnitudes before and after the last retraining."""
    panels = [panel for panel, table in ((_shared, "overlap"), (_magnitudes, "histogram")) if tables[table]]
    for position, panel in enumerate(panels):
        panel(figure.add_subplot(1, len(panels), position + 1), tables)
    return bool(panels)


def _shared(axes: Any, tables: Tables) -> None:
    """Fraction of the sparser mask that the denser shares, each pair a point; on the diagonal is chance."""
    chance, found = (
        [100 * number(row, column) for row in tables["overlap"]]
        for column in ("chance_fraction", "shared_fraction")
    )
    axes.plot([0, 100], [0, 100], color="0.6", linestyle=":")
    axes.plot(chance, found, "o", markersize=3.5, alpha=0.6)
    finish(axes, "weights in common by chance (%)", "weights in common (%)")


def _magnitudes(axes: Any, tables: Tables) -> None:
    last = tables["histogram"][-1]["mask"]
    rows = [row for row in tables["histogram"] if row["mask"] == last]
    edges = [number(row, "log10_from") for row in rows] + [number(rows[-1], "log10_to")]
    for column, label in (("projection", "at the projection"), ("retrained", "after retraining")):
        axes.stairs([number(row, column) for row in rows], edges, label=label)
    finish(axes, f"log10 |w| of weights in {last}", "weights")
