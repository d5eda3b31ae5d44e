"""A study on a cluster: the job that goes on with it once those it waits for have ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lth_cli.config.errors import LthError
from lth_cli.config.launching import Launcher
from lth_cli.launchers import slurm
from lth_cli.report.sweeps import ACTIVE, status
from lth_cli.store.files import read_json, write_json
from lth_cli.store.sweeps import Sweep, folder_of

_NOTE = "goes_on.json"
_LOG = "goes_on.log"


def submit(
    folder: Path, study: str, runs_dir: Path, sweeps: Mapping[str, Launcher], command: Sequence[str]
) -> str:
    """Submit a job that runs a command once the jobs of some sweeps have ended; returns its number.

    One that waits for earlier jobs of the study is called off: the new one does its work.

    Args:
        folder: of the study's report, where the job is noted and what it prints goes.
        study: its name.
        runs_dir: where the sweeps are.
        sweeps: launchers by name, those of one command.
        command: with its arguments.

    Raises:
        LthError: the cluster refuses it.
    """
    points = [point for name in sweeps for point in Sweep.open(folder_of(runs_dir, name)).points()]
    jobs = [point.job for point in points if point.job is not None]
    states = slurm.job_states(jobs) or {}
    waiting = [job for job, state in states.items() if state in ("PENDING", "RUNNING")] or jobs
    note = folder / _NOTE
    before = read_json(note)["job"] if note.is_file() else None
    job = slurm.submit_after(waiting, command, study, folder.resolve() / _LOG, next(iter(sweeps.values())))
    write_json(note, {"job": job})
    if before is not None and (slurm.job_states([before]) or {}).get(before) == "PENDING":
        slurm.cancel([before])
    return job


def refuse_ended(runs_dir: Path, name: str, runs: Collection[str]) -> None:
    """Refuse points of a sweep whose jobs have ended without finishing them.

    Args:
        runs_dir: where the sweep is.
        name: of the sweep; it may not be there yet.
        runs: of the points looked at.

    Raises:
        LthError: naming one of them.
    """
    path = folder_of(runs_dir, name)
    if not (path / "sweep.json").is_file():
        return
    sweep = Sweep.open(path)
    points = [point for point in sweep.points() if point.run in runs and point.job is not None]
    states = slurm.job_states(point.job for point in points)
    ended = [one for one in status(sweep, states) if one.point in points and one.state not in ACTIVE]
    if ended:
        why = f": {ended[0].error}" if ended[0].error else ""
        raise LthError(
            f"{len(ended)} of {len(runs)} points ended unfinished, such as {ended[0].point.run} "
            f"({ended[0].state}{why}); lth study run submits them again"
        )
