"""The other processes of a training in several: started, or met under torchrun; watched; let go, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Config
from lth_cli.experiments import torchrun
from lth_cli.store.states import State
from lth_cli.training import parallel
from lth_cli.training.engine import MakeTrainer
from lth_cli.training.loop import Trainer
from lth_cli.training.ranks import Ranks
from lth_cli.training.teaching import Teaching
from lth_cli.training.trajectory import Trajectory

LOST = 3
"""Exit code of a follower that ends because others have."""

_LEAVING_SECONDS = 10.0
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@contextmanager
def trainers() -> Iterator[MakeTrainer]:
    """What makes trainers: of this process alone, or of as many as the trajectory asks for, led by this one.

    The others are there from the first such trainer on; what is read from the store needs none.
    """
    force: _Force | None = None

    def make_trainer(trajectory: Trajectory, state: State, teaching: Teaching | None) -> Trainer:
        nonlocal force
        processes = trajectory.execution.processes
        if processes == 1:
            return Trainer(trajectory, state, teaching=teaching)
        if force is None or force.size != processes:
            if force is not None:
                force.close()
            force = _Launched(processes) if torchrun.launched() else _Local(processes)
        return force.make_trainer(trajectory, state, teaching)

    try:
        yield make_trainer
    finally:
        if force is not None:
            force.close()


def check_processes(config: Config) -> None:
    """Check `distributed.processes` against the launcher and the batch.

    Raises:
        ConfigError: when they do not fit.
    """
    processes, place = config.distributed.processes, torchrun.launched()
    if place is not None and processes != place.size:
        message = f"{processes}, but torchrun started {place.size} processes; leave it out there"
        raise ConfigError(("distributed.processes", message))
    if processes > config.training.batch_size:
        message = (
            f"{processes} processes cannot share batches of training.batch_size={config.training.batch_size}"
        )
        raise ConfigError(("distributed.processes", message))


class _Force(ABC):
    """Leads other processes.

    Args:
        size: how many processes there are, this one included.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranks: Ranks | None = None

    def make_trainer(self, trajectory: Trajectory, state: State, teaching: Teaching | None) -> Trainer:
        """A trainer that leads all processes. Raises RankLost."""
        if self._ranks is None:
            self._ranks = self._gather(trajectory)
        return parallel.begin(trajectory, state, self._ranks, teaching)

    @abstractmethod
    def _gather(self, trajectory: Trajectory) -> Ranks:
        """Meet the others."""

    def close(self) -> None:
        """Let the others go; those in the middle of a step cannot be reached, and end when this process leaves."""
        ranks, self._ranks = self._ranks, None
        if ranks is None:
            return
        with contextlib.suppress(
            Exception
        ):  # the work is done or has failed already, for a reason of its own
            parallel.end(ranks) if ranks.idle else ranks.leave()


class _Local(_Force):
    """Leads processes that it starts on this machine."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._folder: Path | None = None
        self._followers: dict[int, subprocess.Popen[bytes]] = {}

    def _gather(self, trajectory: Trajectory) -> Ranks:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, _LOOPBACK)
        self._folder = Path(tempfile.mkdtemp(prefix="lth-ranks-"))
        for rank in range(1, self.size):
            self._followers[rank] = self._start(self._folder, rank, trajectory.execution.device.type)
        store = FileStore(str(self._folder / "store"), self.size)
        return Ranks(store, 0, self.size, trajectory.execution.device, self._find_lost)

    def _start(self, folder: Path, rank: int, device: str) -> subprocess.Popen[bytes]:
        arguments = [str(folder), str(rank), str(self.size), device]
        # The same modules as here, a person's own among them; -P keeps the current folder out unless it is one of them.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        with (folder / f"rank-{rank}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "lth_cli.experiments.follower", *arguments],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,  # closes when this process ends, however it ends
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which tells the others what to do
            )

    def _find_lost(self) -> str | None:
        for rank, process in self._followers.items():
            code = process.poll()
            if code is None or code in (0, LOST):
                continue
            if code < 0:
                return f"rank {rank} was ended by {signal.Signals(-code).name}"
            return f"rank {rank} ended with exit code {code}{self._last_words(rank)}"
        return None

    def _last_words(self, rank: int) -> str:
        assert self._folder is not None
        lines = (self._folder / f"rank-{rank}.log").read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        """Let the others go and see that they do."""
        polite = self._ranks is not None and self._ranks.idle
        super().close()
        deadline = time.monotonic() + (_LEAVING_SECONDS if polite else 0.0)
        for process in self._followers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._followers.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Launched(_Force):
    """Leads processes that torchrun has started, which wait in `follower.follow_launcher`."""

    _meetings = 0

    def _gather(self, trajectory: Trajectory) -> Ranks:
        store = launcher_store()
        store.set(meeting_key(_Launched._meetings), trajectory.execution.device.type)
        meeting = PrefixStore(f"lth/{_Launched._meetings}", store)
        _Launched._meetings += 1
        return Ranks(meeting, 0, self.size, trajectory.execution.device)

    @classmethod
    def dismiss(cls) -> None:
        """Tell the other processes that nothing more will come."""
        launcher_store().set(meeting_key(cls._meetings), "")


_store: Store | None = None


def launcher_store() -> Store:
    """The key-value store that the processes of a launcher share."""
    global _store  # noqa: PLW0603 - one connection a process
    if _store is None:
        _store = next(iter(rendezvous("env://")))[0]
    return _store


def meeting_key(number: int) -> str:
    """Under what rank 0 says on which kind of device to meet for the n-th time; empty: not again."""
    return f"lth/meeting/{number}"


def dismiss() -> None:
    """Let the processes that torchrun started end, once this one, their leader, has nothing more to do."""
    with contextlib.suppress(RuntimeError):
        _Launched.dismiss()
