"""`lth pack` and `lth unpack`: a run as one file to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "pack",
        help="Write a finished run, states, masks, results and a reproducibility card, as one archive with the "
        "checksum of every file.",
        epilog="Example: lth pack imp -o imp.tar",
    )(_pack)
    app.command(
        "unpack",
        help="Make a run of such an archive: every byte is checked first, nothing is executed.",
        epilog="Example: lth unpack imp.tar; lth rewind imp",
    )(_unpack)


def _pack(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of the run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Archive to write; must not exist.")],
    optimizer: Annotated[
        bool,
        typer.Option(
            "--optimizer", help="With what the optimizer had at each state, to train on from its end."
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    import functools

    from lth_cli.experiments.card import card
    from lth_cli.store.packing import pack
    from lth_cli.store.runs import find_run

    found = find_run(runs_dir, run)
    count = pack(found, output, functools.partial(card, found), optimizer=optimizer)
    typer.echo(f"{output}: {count} files, {output.stat().st_size:,} bytes")


def _unpack(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="What lth pack wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of runs to put it in.")
    ] = None,
    most: Annotated[
        float | None, typer.Option("--most", min=0.0, help="Gigabytes it may unpack to.  [default: 68.7]")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.store.packing import LARGEST, unpack

    largest = LARGEST if most is None else int(most * 10**9)
    typer.echo(unpack(archive, output or runs_dir, largest).path)
