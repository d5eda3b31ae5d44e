"""Points as jobs of one Slurm job array, submitted through submitit; their states and their end."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.launching import Launcher
from lth_cli.store.sweeps import Sweep

WARNING_SECONDS = 90  # between Slurm's warning that time is nearly up and the end
_ANSWER_SECONDS = 30.0
# Until submitit listens, which takes Python seconds, the warning would end a job that has nothing to lose yet.
_PYTHON = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""


def check() -> None:
    """Make sure that jobs can be submitted from here.

    Raises:
        RequestError: submitit or Slurm's commands are missing.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise RequestError("launcher=slurm needs submitit: pip install 'lth-cli[slurm]'") from None
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise RequestError(
            f"launcher=slurm needs Slurm's commands on this machine; no {', '.join(missing)} here"
        )


def submit(sweep: Sweep, tasks: Mapping[int, Callable[[], None]], launcher: Launcher) -> dict[int, str]:
    """Submit points as one job array.

    Args:
        sweep: whose points they are.
        tasks: what the job of each point calls.
        launcher: partition, time and the like.

    Returns:
        The job of each point.

    Raises:
        LthError: the cluster refuses the jobs.
    """
    import submitit

    executor = submitit.SlurmExecutor(
        sweep.path.resolve() / "logs" / "slurm", max_num_timeout=launcher.requeues, python=_PYTHON
    )
    executor.update_parameters(**_parameters(sweep.name, launcher, len(tasks)))
    try:
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks.values()]
    except (submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError) as error:
        raise LthError(f"Slurm refuses the jobs: {_last_line(str(error))}") from error
    return {index: job.job_id for index, job in zip(tasks, jobs, strict=True)}


def submit_after(
    jobs: Iterable[str], command: Sequence[str], name: str, log: Path, launcher: Launcher
) -> str:
    """Submit a job that runs a command in the present folder once other jobs have ended, however they end.

    Args:
        jobs: to wait for.
        command: with its arguments.
        name: of the job.
        log: what it prints.
        launcher: partition, time and the like.

    Returns:
        Its number.

    Raises:
        LthError: the cluster refuses it.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    asked = _parameters(name, launcher, 1)
    options = {
        "dependency": f"afterany:{':'.join(arrays)}",
        "job-name": asked["job_name"],
        "time": asked["time"],
        "cpus-per-task": asked["cpus_per_task"],
        "output": str(log),
        "open-mode": "append",
        **{
            key.replace("_", "-"): asked[key]
            for key in ("partition", "account", "gpus_per_node")
            if key in asked
        },
        **asked["additional_parameters"],
    }
    written = [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in options.items()
        if value is not False
    ]
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *written, "--wrap", f"exec {shlex.join(command)}"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LthError(f"Slurm cannot be asked for a job: {error}") from error
    if done.returncode:
        raise LthError(f"Slurm refuses the job: {_last_line(done.stderr)}")
    return done.stdout.strip().partition(";")[0]


def _parameters(name: str, launcher: Launcher, points: int) -> dict[str, Any]:
    hours = launcher.time.endswith("h")
    minutes = int(launcher.time.removesuffix("h").removesuffix("min")) * (60 if hours else 1)
    chosen = {
        "partition": launcher.partition,
        "account": launcher.account,
        "gpus_per_node": launcher.gpus or None,
    }
    return {
        "job_name": f"lth-{name}",
        "time": minutes,
        "cpus_per_task": launcher.cpus,
        "array_parallelism": launcher.parallel or points,
        "signal_delay_s": WARNING_SECONDS,
        # not submitit's `mem`, which wants a number of GB; `requeue` is not every cluster's default
        "additional_parameters": {"mem": launcher.memory, "requeue": True, **launcher.extra},
        **{key: value for key, value in chosen.items() if value is not None},
    }


def job_states(jobs: Iterable[str | None]) -> dict[str, str] | None:
    """Slurm's word for each job that it still knows (PENDING, RUNNING, COMPLETED, ...); None when it cannot be asked.

    Slurm's own memory comes first; where the cluster keeps accounts, they know of jobs that ended long ago.
    """
    wanted = sorted({job for job in jobs if job is not None})
    arrays = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    if not wanted:
        return {}
    if shutil.which("squeue") is None:
        return None
    found = _ask(["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", arrays]) or {}
    # A job id that is not in its memory any more makes squeue fail as well as a cluster out of reach.
    listed = _ask(["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", arrays])
    if listed is None and not found and _ask(["squeue", "-h", "-o", "%i|%T", "--me"]) is None:
        return None
    found |= listed or {}
    return {job: found[job] for job in wanted if job in found}


def _ask(command: Sequence[str]) -> dict[str, str] | None:
    """The `job|state` lines of a Slurm command; None when it fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.partition("|") for line in done.stdout.splitlines() if line)
    # sacct writes "CANCELLED by 1000"
    return {job.strip(): state.split()[0] for job, _, state in pairs if state.strip()}


def cancel(jobs: Sequence[str]) -> None:
    """Call jobs off; those that run store their states first. Raises LthError."""
    try:
        done = subprocess.run(
            ["scancel", *jobs], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LthError(f"Slurm cannot be asked to cancel: {error}") from error
    if done.returncode:
        raise LthError(f"Slurm does not cancel: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"
