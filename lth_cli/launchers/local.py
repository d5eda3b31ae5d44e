"""Several points at a time on this machine, in worker processes that each run many points.

Plain processes and pipes rather than joblib's loky: there a worker that dies (memory, a fault in a driver) ends
the whole pool, here it costs its own point; a signal can be passed on so that every point stores its state; and
each worker sees its own GPU before CUDA starts. A worker stays for the next point, as importing torch takes seconds.

A worker reads the index of a point from its standard input, runs it, and answers with a line on its standard
output. The end of its input means that the launcher is gone or done, and it stops.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lth_cli.config.errors import LthError
from lth_cli.store.sweeps import Sweep

_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.2
_REFRESH_SECONDS = 2.0


def worker_environments(
    workers: int, threads: int, gpus: Sequence[int] | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """The environment of each worker: its share of threads, and its GPU where GPUs are dealt out.

    Args:
        workers: how many.
        threads: compute threads of each.
        gpus: numbers of GPUs as this process sees them, dealt out in turn; None leaves them as they are.
        environment: that of this process.
    """
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    found = []
    for number in range(workers):
        own = {**environment, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpus:
            gpu = gpus[number % len(gpus)]
            own["CUDA_VISIBLE_DEVICES"] = visible[gpu] if gpu < len(visible) else str(gpu)
        found.append(own)
    return found


class Pool:
    """Workers, and the points that none has taken yet.

    Args:
        sweep: whose points they are.
        points: index of each point to run, and what it shares with others: of those that share, one goes first.
        command: starts a worker.
        environments: one for each worker.
        changed: told the index of each point that has ended, from any thread.
    """

    def __init__(
        self,
        sweep: Sweep,
        points: Mapping[int, str],
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        changed: Callable[[int], None],
    ) -> None:
        self._sweep = sweep
        self._command = command
        self._environments = environments[: len(points)]
        self._changed = changed
        self._waiting = dict(points)
        self._first: dict[str, int] = {}  # the point that trains for the others of its kind
        self._trained: set[str] = set()
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._faults: list[Exception] = []

    def run(self, refresh: Callable[[], None], stop: threading.Event) -> None:
        """Run every point; `stop`, or an exception, ends the workers once they have stored their states.

        Raises:
            LthError: a worker cannot be started, or what it did cannot be noted.
        """
        threads = [threading.Thread(target=self._serve, args=(own,)) for own in self._environments]
        for thread in threads:
            thread.start()
        waited = 0.0
        try:
            while any(thread.is_alive() for thread in threads) and not stop.is_set():
                stop.wait(_POLL_SECONDS)
                waited += _POLL_SECONDS
                if waited >= _REFRESH_SECONDS:
                    refresh()
                    waited = 0.0
        finally:
            self._end(threads)
        if self._faults:
            raise LthError(f"a worker could not be kept going: {self._faults[0]}") from self._faults[0]

    def kill(self) -> None:
        """End every worker at once."""
        self._signal(signal.SIGKILL)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        with self._lock:
            self._stopping = True
        if any(thread.is_alive() for thread in threads):
            self._signal(signal.SIGTERM)
        for thread in threads:
            thread.join(_STOP_SECONDS)
        self.kill()  # nothing is left, or what did not stop in time
        for thread in threads:
            thread.join()

    def _signal(self, number: int) -> None:
        with self._lock:
            for process in self._processes:
                process.send_signal(number)

    def _next(self) -> int | None:
        """The next point; one whose steps another worker is about to train only if there is no other."""
        with self._lock:
            if self._stopping or not self._waiting:
                return None
            free = [
                index
                for index, kind in self._waiting.items()
                if kind in self._trained or kind not in self._first
            ]
            index = free[0] if free else next(iter(self._waiting))
            self._first.setdefault(self._waiting.pop(index), index)
            return index

    def _serve(self, environment: Mapping[str, str]) -> None:
        """One worker's thread: give it points until there are none; start another one when it dies."""
        process: subprocess.Popen[str] | None = None
        try:
            while (index := self._next()) is not None:
                if process is None:
                    process = self._start(environment)
                if not self._work(process, index):
                    self._leave(process)
                    process = None
                with self._lock:
                    self._trained |= {kind for kind, first in self._first.items() if first == index}
                self._changed(index)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: `run` raises it
            self._faults.append(error)
        finally:
            if process is not None:
                self._leave(process)

    def _start(self, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        # a session of its own: a Ctrl-C in the terminal reaches the launcher alone, which passes it on
        process = subprocess.Popen(
            [*self._command, str(self._sweep.path)],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self._lock:
            self._processes.add(process)
            if self._stopping:
                process.terminate()
        return process

    def _work(self, process: subprocess.Popen[str], index: int) -> bool:
        """Have a point run; False when the worker did not live to answer."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, and the missing answer tells
            process.stdin.write(f"{index}\n")
            process.stdin.flush()
        if process.stdout.readline() == f"{index}\n":
            return True
        code = process.wait()
        if self._sweep.noted(index).get("state") not in ("failed", "interrupted", "finished"):
            stopped = self._stopping and code in (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
            self._sweep.note(index, "interrupted" if stopped else "failed", None if stopped else _ended(code))
        return False

    def _leave(self, process: subprocess.Popen[str]) -> None:
        """Let a worker go: the end of its input tells it that there is no more to do."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()
        with self._lock:
            self._processes.discard(process)


def _ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9), most often for want of memory"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended by itself with exit code {code}; its log says why"


def worker_command(module: str) -> list[str]:
    """How to start a module of this package as a process, without the working folder on its import path."""
    return [sys.executable, "-P", "-m", module]


def share_of_cores(workers: int) -> int:
    """Compute threads for each of several workers, so that they do not fight over the cores of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def log_output(path: Path) -> None:
    """Send what this process prints, its children included, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
