"""Runs `lth` in forked children of one warm process, and breaks things in them.

Importing torch takes longer than the runs these tests break, so it is imported once. A request is a line of JSON on
standard input (see `harness.Zygote.run`), an answer a line on standard output. Faults are injected at *calls that
change the disk* below one folder, counted from 1 in each child, so that a test can name every one of them in turn.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lth_cli.cli.startup import defer_compiler


class Disk:
    """Counts the calls that change the disk below `root`, and fails or dies at the chosen ones.

    Args:
        root: only what lies below it counts.
        fail_at: call that fails first; 0 for none.
        code: errno it fails with.
        stays: whether every later call fails too, as on a full disk, or that one alone.
        kill_at: call at which the process kills itself; a write is left half done.
        delete_at: calls before which the shared store is deleted, as by another process.
    """

    def __init__(
        self, root: Path, fail_at: int, code: int, stays: bool, kill_at: int, delete_at: Sequence[int]
    ) -> None:
        self.calls: list[str] = []
        self._root, self._fail_at, self._code = f"{root}/", fail_at, code
        self._stays, self._kill_at, self._delete_at = stays, kill_at, set(delete_at)

    def install(self) -> None:
        """Take the place of the functions of `os` and `io` that write."""
        for name in ("write", "fsync", "ftruncate"):
            setattr(os, name, self._on_descriptor(name, getattr(os, name)))
        for name, position in (("replace", 1), ("rename", 1), ("link", 1), ("mkdir", 0), ("unlink", 0)):
            setattr(os, name, self._on_path(name, getattr(os, name), position))
        os_open, io_open = os.open, io.open

        def low(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT:
                self._hit("open", path)
            return os_open(path, flags, *args, **kwargs)

        def high(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if set(mode) & set("wax+"):
                self._hit("open", file)
            return io_open(file, mode, *args, **kwargs)

        os.open, io.open = low, high  # type: ignore[assignment]

    def _on_descriptor(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *args: Any) -> Any:
            try:
                path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            except OSError:
                path = ""
            half = (
                (lambda: original(descriptor, bytes(args[0])[: len(args[0]) // 2]))
                if args and name == "write"
                else None
            )
            self._hit(name, path, half)
            return original(descriptor, *args)

        return call

    def _on_path(self, name: str, original: Callable[..., Any], position: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._hit(name, args[position])
            return original(*args, **kwargs)

        return call

    def _hit(self, name: str, path: Any, half: Callable[[], Any] | None = None) -> None:
        if not isinstance(path, str | os.PathLike):
            return
        full = os.path.abspath(os.fspath(path)) + "/"  # noqa: PTH100 - Path would resolve through hooked calls
        if not full.startswith(self._root):
            return
        self.calls.append(f"{name} {full[len(self._root) : -1]}")
        number = len(self.calls)
        if number in self._delete_at:
            subprocess.run(["rm", "-rf", f"{self._root}.store"], check=True)
        if number == self._kill_at:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fail_at and (number == self._fail_at or (self._stays and number > self._fail_at)):
            raise OSError(self._code, os.strerror(self._code))


def serve(lines: Iterator[str]) -> None:
    """Answer requests until there are no more."""
    _warm()
    for line in lines:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _warm() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    defer_compiler()
    for module in ("lth_cli.cli.launch", "lth_cli.cli.main", "lth_cli.training.loop"):
        importlib.import_module(module)
    from lth_cli.config import compose
    from lth_cli.data import digits

    compose.load("prune", ["device=cpu"])  # the first composition is slow
    # the data are the same in every child: read once
    digits._table = functools.cache(digits._table)
    digits._table()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        _child(request)
    status = _wait(child, begun, request)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}


def _wait(child: int, begun: float, request: dict[str, Any]) -> int:
    """Wait for a child, delivering the signals asked for; one that hangs is killed after `timeout`."""
    signals = [(at, getattr(signal, name)) for at, name in request.get("signals", [])]
    signals.append((request.get("timeout", 60.0), signal.SIGKILL))
    for at, number in sorted(signals):
        while time.monotonic() - begun < at:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
    return os.waitpid(child, 0)[1]


def _child(request: dict[str, Any]) -> None:
    code, disk = 1, None
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of some shells
        os.chdir(request["cwd"])
        out = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(request.get("env", {}))
        _log_steps(request.get("steps"))
        if request.get("code"):
            exec(request["code"], {})
        if not request.get("figures"):
            import lth_cli.cli.launch

            lth_cli.cli.launch.show.draw_figures = lambda run: None
        disk = Disk(
            Path(request["cwd"]) / "runs",
            request.get("fail_at", 0),
            getattr(errno, request.get("errno", "ENOSPC")),
            request.get("stays", True),
            request.get("kill_at", 0),
            request.get("delete_at", ()),
        )
        disk.install()
        sys.argv = ["lth", *request["arguments"]]
        from lth_cli.cli.main import main

        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - a child tells what happened, whatever it was
        import traceback

        traceback.print_exc()
        code = 70
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if disk is not None and request.get("calls"):
            Path(request["cwd"], "calls.json").write_text(json.dumps(disk.calls))
        os._exit(code)


def _log_steps(path: str | None) -> None:
    """Append `identity step` for every training step, so that a killed child has told how far it came."""
    if path is None:
        return
    from lth_cli.training.loop import Trainer

    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    advance, write = Trainer._advance, os.write

    def logged(self: Trainer, *args: Any) -> Any:
        write(log, f"{self.trajectory.identity[:16]} {self.step}\n".encode())
        return advance(self, *args)

    Trainer._advance = logged  # type: ignore[method-assign]


if __name__ == "__main__":
    serve(iter(sys.stdin.readline, ""))
