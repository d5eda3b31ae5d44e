"""What runs one stored point of a sweep, whoever launched it: this process, a local worker, or a job of a cluster."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lth_cli.cli.point import run_point
from lth_cli.cli.signals import Signals
from lth_cli.config.compose import validate
from lth_cli.config.errors import LthError
from lth_cli.config.sources import where_own
from lth_cli.launchers.local import log_output
from lth_cli.launchers.slurm import job_states
from lth_cli.report.sweeps import update_table
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import Sweep
from lth_cli.training import ranks
from lth_cli.training.engine import Interrupted

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


def run_stored_point(sweep: Sweep, index: int, signals: Signals, quiet: bool = False) -> None:
    """Run a point, or go on with it, and note what became of it.

    Raises:
        LthError: it failed, whatever the reason; noted.
        Interrupted: a signal asked to stop; noted.
    """
    info, point = sweep.info, sweep.point(index)
    sweep.note(index, "running")
    try:
        config = validate({**point.config, "runs_dir": str(sweep.runs_dir)})
        source = None if info["source"] is None else Run.open(Path(info["source"]))
        run_point(str(info["kind"]), config, point.run, source, signals, quiet)
    except Interrupted:
        sweep.note(index, "interrupted")
        raise
    except LthError as error:
        sweep.note(index, "failed", str(error))
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}{where_own(error)}"
        sweep.note(index, "failed", text)
        traceback.print_exc()
        raise LthError(text) from error
    except BaseException:  # a signal before the first step
        sweep.note(index, "interrupted")
        raise
    sweep.note(index, "finished")


class ClusterPoint:
    """A point as submitit pickles it; called by the job, again and again until it is done.

    Slurm's warning that time is nearly up, or that the job makes way for another (SIGUSR2), stores the state and
    puts the job back into the queue. SIGTERM stores the state too: Slurm sends it when the job is cancelled, which
    ends it, and when Slurm itself requeues it.

    Args:
        folder: of the sweep.
        index: of the point.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self.folder, self.index = folder, index

    def __call__(self) -> None:
        """Run the point; leaves the process with exit code 1 when it fails, so that the cluster knows."""
        sweep = Sweep.open(self.folder)
        log_output(sweep.log_path(self.index))
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's
        warned = threading.Event()
        try:
            with Signals() as signals:

                def warn(_: int, __: FrameType | None) -> None:
                    warned.set()
                    signals.ask()

                signal.signal(signal.SIGUSR2, warn)
                self._tell(sweep)
                run_stored_point(sweep, self.index, signals)
        except LthError as error:
            sys.stderr.write(f"lth: {error}\n")
            sys.exit(1)
        except SystemExit:
            if warned.is_set():
                requeue(signal.SIGUSR2, None)
            raise
        finally:
            self._tell(sweep)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit submits again: the same, as the run knows how far it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    @staticmethod
    def _tell(sweep: Sweep) -> None:
        """Bring the table up to date; the point itself does not depend on it."""
        try:
            update_table(sweep, job_states(point.job for point in sweep.points()))
        except LthError as error:
            sys.stderr.write(f"lth: {error}\n")


def main() -> None:
    """A local worker: run the points whose indices arrive on standard input, until it ends."""
    sweep = Sweep.open(Path(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    indices: queue.Queue[int | None] = queue.Queue()
    threading.Thread(target=_listen, args=(indices,), daemon=True).start()
    while (index := indices.get()) is not None:
        log_output(sweep.log_path(index))
        try:
            with Signals() as signals:
                run_stored_point(sweep, index, signals)
        except LthError as error:
            sys.stderr.write(f"lth: {error}\n")
        answers.write(f"{index}\n")
        answers.flush()
    if ranks.joined:
        ranks.leave_process(0)


def _listen(indices: queue.Queue[int | None]) -> None:
    """Take indices from the launcher; its end, should it come while a point runs, is like a signal to stop."""
    for line in sys.stdin:
        indices.put(int(line))
    indices.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
