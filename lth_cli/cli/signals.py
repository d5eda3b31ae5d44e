"""SIGINT and SIGTERM: a first one asks the work to stop and store its state; a second leaves at once.

Python runs a signal handler only between two instructions of the main thread, which may be minutes into a single
call (a step of a large model, decoding images). So a thread of its own learns of signals through a pipe that the
handler below Python writes to, and leaves after a while if the work has not stopped: every file is written whole or
not at all, so leaving anywhere loses no more than what was trained since the last stored state.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Protocol

from lth_cli.config.errors import LthError
from lth_cli.training.engine import Interrupted

PATIENCE_SECONDS = 3.5
"""How long the work may take to stop by itself; 5 seconds are promised."""
_STORING_SECONDS = 20.0  # and how much longer, while a state is being written
_SAME_SECONDS = 0.2  # a terminal and a wrapper may both deliver one Ctrl-C
_HANDLED = (signal.SIGINT, signal.SIGTERM)
_LEAVE = b"\0"

# A loader process must not pass on the Ctrl-C that the whole process group gets.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class Stoppable(Protocol):
    """Work that stops by itself once asked."""

    @property
    def storing(self) -> bool:
        """Whether a state is being written now."""

    def interrupted(self, text: str) -> None:
        """Note that the work has ended before its end."""


class Signals:
    """Turns signals into a request to stop, from the start to the end of a `with` block.

    Attributes:
        stop: set by the first signal.
        received: its number; None before.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.received: int | None = None
        self._work: Stoppable | None = None
        self._owner = os.getpid()

    @property
    def exit_code(self) -> int:
        """128 + the signal, 0 without one."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._handle) for number in _HANDLED}
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.write(self._write, _LEAVE)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)
        if isinstance(error, Interrupted):
            sys.stderr.write(f"lth: {error}\n")
            sys.exit(self.exit_code or 1)

    def ask(self) -> None:
        """From the main thread: ask the work to stop in its own time; without any, end the program."""
        self.stop.set()
        if self._work is None:
            sys.exit(1)

    @contextlib.contextmanager
    def working(self, work: Stoppable) -> Iterator[None]:
        """While something is worked on, which then stops by itself and stores its state."""
        self._work = work
        try:
            if self.received:  # before, this would have ended the program
                raise Interrupted("stopped before the first step")
            yield
        finally:
            self._work = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() == self._owner and self._work is None:
            self.received = self.received or number
            sys.exit(128 + number)

    def _watch(self) -> None:
        first, deadline = 0.0, float("inf")
        while True:
            wait = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], wait)[0]:
                self._leave()
            for number in os.read(self._read, 64):
                if number == 0:
                    return
                if number not in _HANDLED:
                    continue
                if self.stop.is_set():
                    if time.monotonic() - first > _SAME_SECONDS:
                        os._exit(128 + number)
                    continue
                first, self.received = time.monotonic(), number
                deadline = first + PATIENCE_SECONDS
                self.stop.set()
                if self._work is not None:
                    _say("stopping; the state is being stored (again to leave at once)")

    def _leave(self) -> None:
        """End the program from outside of the main thread, which did not stop in time."""
        work = self._work
        if work is not None:
            until = time.monotonic() + _STORING_SECONDS
            while work.storing and time.monotonic() < until:
                time.sleep(0.05)
            text = "stopped in the middle of a step; the same command goes on from the last stored state"
            with contextlib.suppress(LthError, OSError):
                work.interrupted(text)
            _say(text)
        os._exit(self.exit_code)


def _say(text: str) -> None:
    """To standard error, past Python's buffers, which the main thread may be using."""
    with contextlib.suppress(OSError):
        os.write(2, f"lth: {text}\n".encode())
