"""`lth report`: runs as one HTML file to send on, and figures for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lth_cli.cli.listing import Axis, FontSize, MetricName, RunsDir, Size, look_of, with_results

if TYPE_CHECKING:
    from lth_cli.report.curves import Chart
    from lth_cli.report.figures import Look


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "report",
        help="Write runs as one HTML file that needs nothing else: results, controls, learning curves, layers, "
        "analyses, what differs, configs. With --figures also as files for a paper, with their numbers as CSV.",
        epilog="Examples: lth report imp-seed_0 imp-seed_1 late -o imp.html   lth report --sweep imp-seed_0_1_2   "
        "lth report imp --figures paper --format pdf --size 3.3x2.4 --font-size 8",
    )(_report)


def _report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or paths of runs.")
    ] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Also every run of this sweep.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", help="Of the page; the names by default.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder to write figures and their numbers into.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Of the figures: png, svg, pdf, or several.")
    ] = "png,svg,pdf",
    size: Size = "6.4x4.2",
    font_size: FontSize = 10.0,
    metric: MetricName = None,
    axis: Axis = "density",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.report.figures import ENDINGS
    from lth_cli.report.page import charts_of, check_place, write_page
    from lth_cli.report.series import group_runs
    from lth_cli.store.sweeps import find_sweep

    look = look_of(size, font_size)
    endings = tuple(formats.lower().split(","))
    if wrong := [ending for ending in endings if ending not in ENDINGS]:
        raise typer.BadParameter(f"{wrong[0]!r}; accepted: {', '.join(ENDINGS)}", param_hint="--format")
    names = list(runs or [])
    if sweep is not None:
        found = find_sweep(runs_dir, sweep)
        names = [*(str(found.runs_dir / point.run) for point in found.points()), *names]
    if not names:
        raise typer.BadParameter("name at least one run, or a sweep with --sweep")
    check_place(output)
    chosen, skipped = with_results(names, runs_dir)
    groups = group_runs(chosen)
    charts = charts_of(groups, axis, metric)
    named = chosen[0].name if len(chosen) == 1 else f"{chosen[0].name} and {len(chosen) - 1} more"
    write_page(output, chosen, charts, title=title or sweep or named, skipped=skipped)
    typer.echo(f"Written: {output}")
    if figures is not None:
        for path in _draw(charts.all, figures, look, endings):
            typer.echo(f"Drawn: {path}")


def _draw(charts: Sequence[Chart], folder: Path, look: Look, endings: Sequence[str]) -> list[Path]:
    """Each chart as figures, and its numbers."""
    import io

    from lth_cli.report.figures import chart_figure
    from lth_cli.report.layout import write_csv
    from lth_cli.store.files import write_text

    written = []
    for chart in charts:
        written += chart_figure(chart, folder / chart.name, look=look, endings=endings)
        numbers = io.StringIO()
        write_csv(chart.rows(), numbers)
        path = folder / f"{chart.name}.csv"
        write_text(path, numbers.getvalue())
        written.append(path)
    return written
