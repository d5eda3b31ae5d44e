"""`lth verify`: is everything stored what was written? Reads alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lth_cli.store.verify import Fault


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "verify",
        help="Check every file against its checksum and every invariant of the rounds; exit code 1 on a fault, or "
        "where a newer lth wrote what this one cannot check.",
        epilog="Example: lth verify; lth verify RUN --json",
    )(_verify)


def _verify(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Names or paths of runs; all of them and the shared store without."
        ),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")
    ] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    import json as json_library

    found = _check(runs or [], runs_dir)
    notes = _notes(found, runs_dir)
    every = [fault for faults in found.values() for fault in faults]
    newer = sum(fault.newer for fault in every)
    damaged = len(every) - newer
    if json:
        told = {
            "faults": damaged,
            "newer": newer,
            "checked": {
                name: [
                    {
                        "path": str(fault.path),
                        "message": fault.message,
                        "kind": "newer" if fault.newer else "fault",
                    }
                    for fault in faults
                ]
                for name, faults in found.items()
            },
            "notes": notes,
        }
        typer.echo(json_library.dumps(told, indent=2))
    else:
        for name, faults in found.items():
            typer.echo(f"{name}: {_count(faults)}")
            for fault in faults:
                typer.echo(f"  {fault.path}: {fault.message}")
            for note in notes.get(name, ()):
                typer.echo(f"  note: {note}")
        if not found:
            typer.echo(f"No runs in {runs_dir} yet. Try: lth prune")
    if not json and damaged:
        typer.echo(
            "A damaged state in the store is never used: the next command that needs it trains it again."
        )
    if not json and newer:
        typer.echo("Files of a newer lth are no faults; this one cannot check them and leaves them alone.")
    if every:
        raise typer.Exit(1)


def _check(names: list[str], runs_dir: Path) -> dict[str, list[Fault]]:
    """The faults of each thing checked, by its name."""
    from lth_cli.store.files import Damaged
    from lth_cli.store.formats import NewerFormat
    from lth_cli.store.runs import find_run, list_runs
    from lth_cli.store.trajectories import TrajectoryStore
    from lth_cli.store.verify import fault_of, lost_runs, verify_run, verify_store

    found: dict[str, list[Fault]] = {}
    for name in names:
        try:
            found[name] = verify_run(find_run(runs_dir, name))
        except (Damaged, NewerFormat) as error:
            found[name] = [fault_of(runs_dir, error)]
    if names:
        return found
    listed, errors = list_runs(runs_dir)
    faults = [*(fault_of(runs_dir, error) for error in errors), *lost_runs(runs_dir)]
    found = {fault.path.parent.name: [fault] for fault in faults}
    found |= {run.name: verify_run(run) for run in listed}
    store = TrajectoryStore(runs_dir / ".store")
    if store.identities():
        found["shared store"] = verify_store(store)
    return found


def _notes(found: dict[str, list[Fault]], runs_dir: Path) -> dict[str, list[str]]:
    """What is no fault of what is stored and good to know, by name of a run: its own code is another now."""
    from lth_cli.config.errors import LthError
    from lth_cli.store.own_code import changes
    from lth_cli.store.runs import find_run

    notes = {}
    for name in found:
        try:
            changed = changes(find_run(runs_dir, name))
        except LthError:  # the shared store, or a run too damaged to be read, which is among the faults
            continue
        if changed:
            notes[name] = [f"own code: {line}" for line in changed]
    return notes


def _count(faults: list[Fault]) -> str:
    newer = sum(fault.newer for fault in faults)
    count = len(faults) - newer
    told = f"{count or 'no'} fault{'' if count == 1 else 's'}"
    return f"{told}, {newer} file{'' if newer == 1 else 's'} of a newer lth" if newer else told
