"""`lth cancel`: call the rest of a sweep off."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from lth_cli.cli.listing import RunsDir


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "cancel",
        help="Call off what is left of a sweep; running points store their states first.",
        epilog="Example: lth cancel rates",
    )(_cancel)


def _cancel(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a sweep; lth ls --sweep shows it.")],
    runs_dir: RunsDir = Path("runs"),
) -> None:
    from lth_cli.config.errors import RequestError
    from lth_cli.launchers import slurm
    from lth_cli.report.sweeps import ACTIVE, status
    from lth_cli.store.holder import Life
    from lth_cli.store.sweeps import find_sweep

    found = find_sweep(runs_dir, sweep)
    holder = found.lock().holder
    if holder is not None and found.launching:
        if holder.life is not Life.ALIVE:
            raise RequestError(f"sweep {sweep} is launched by {holder}; cancel it on that machine")
        os.kill(holder.pid, signal.SIGTERM)
        typer.echo(f"Asked {holder} to stop sweep {sweep}.")
        return
    known = status(found, slurm.job_states(point.job for point in found.points()))
    jobs = [one.point.job for one in known if one.state in ACTIVE and one.point.job is not None]
    if not jobs:
        typer.echo(f"Nothing of sweep {sweep} is running.")
        return
    found.set_cancelled()
    slurm.cancel(jobs)
    typer.echo(f"Cancelled {len(jobs)} job{'s' * (len(jobs) > 1)} of sweep {sweep}.")
