"""`lth gc`: free what no run needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lth_cli.store.collect import Garbage


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "gc",
        help="Free states of the shared store that no run needs. Shows them first; runs that are going on, or "
        "can be gone on with, keep what they need.",
        epilog="Example: lth gc; lth gc --yes",
    )(_gc)


def _gc(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Free without asking.")] = False,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")
    ] = Path("runs"),
) -> None:
    from lth_cli.store.collect import collection_lock, find_garbage, free, free_leftovers

    found = find_garbage(runs_dir)
    if not found:
        typer.echo(f"Nothing to free in {runs_dir}: every stored state is needed by a run.")
        return
    for garbage in found:
        typer.echo(_line(garbage))
    total = sum(garbage.size for garbage in found)
    if not yes:
        question = f"Free {_bytes(total)}? No run shows, checks or goes on differently without it"
        if not sys.stdin.isatty():
            typer.echo(f"{_bytes(total)} can be freed; nothing was: lth gc --yes does it")
            return
        typer.confirm(question, abort=True)
    with collection_lock(runs_dir).acquire():
        freed = [garbage for garbage in found if free(runs_dir, garbage)]
        free_leftovers(runs_dir)
    typer.echo(f"Freed {_bytes(sum(garbage.size for garbage in freed))}")
    if len(freed) < len(found):
        typer.echo(f"{len(found) - len(freed)} of them a run has asked for meanwhile; they stay")


def _line(garbage: Garbage) -> str:
    """One trajectory: how much of it goes, and what it trains; or answers of teachers."""
    told = garbage.description or {}
    if "answers" in told:
        return f"{garbage.identity[:12]}  {_bytes(garbage.size):>9}  answers of teachers, {told['answers']}"
    names = [
        str(told.get(part, {}).get("_target_", "")).rpartition(".")[2] for part in ("model", "optimizer")
    ]
    what = ", ".join([*filter(None, names), "dense" if told.get("mask") is None else "masked"])
    states = f"{garbage.states} state{'' if garbage.states == 1 else 's'}"
    return f"{garbage.identity[:12]}  {_bytes(garbage.size):>9}  {states:<9} {what if told else ''}".rstrip()


def _bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
