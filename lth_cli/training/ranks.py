"""The processes that train one trajectory together: what they tell each other, and how one learns that another is gone.

Two groups connect them. The one for tensors (NCCL between GPUs, Gloo on CPUs) is used by all ranks at the same time
and gives up after some minutes. The one for commands is always Gloo and waits as long as it takes: between two
commands rank 0 may wait for a lock for hours. Either way a rank whose process ends is noticed at once, because its
connections close.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from lth_cli.config.errors import LthError

joined = False
"""Whether this process has been a rank: it must then leave with `leave_process`."""

_TENSOR_TIMEOUT = datetime.timedelta(minutes=10)
_COMMAND_TIMEOUT = datetime.timedelta(days=365)
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0  # how long after a broken connection the cause may take to show
_CONNECTION = re.compile(r"gloo|nccl|connection|socket|store|timed? ?out", re.IGNORECASE)
_FAILURES = "failures"


class RankLost(LthError):
    """Another process that took part in the training has failed or is gone.

    Args:
        what: has happened to which.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; the same command goes on from the last stored state")


class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 decides, and alone writes.
        size: how many there are.
        device: where it computes.
        idle: on rank 0, whether the others wait for a command.
        find_lost: what has become of other processes, as far as this one can see; None while all is well.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        device: torch.device,
        find_lost: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Meet the others; returns when all are there.

        Raises:
            RankLost: when another one fails meanwhile.
        """
        global joined  # noqa: PLW0603 - a fact about the process
        self.rank, self.size, self.device = rank, size, device
        self.find_lost = find_lost
        self.idle = True
        self._store = store
        store.set(f"ready/{rank}", "1")
        everyone = [f"ready/{number}" for number in range(size)]
        while not store.check(everyone):
            if lost := self._failure():
                raise RankLost(lost)
            time.sleep(_POLL_SECONDS)
        joined = True
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "nccl"
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=_TENSOR_TIMEOUT,
        )
        # As torch declares it, a number when this process were no member; it always is.
        self._commands: Any = dist.new_group(backend="gloo", timeout=_COMMAND_TIMEOUT)

    def broadcast(self, value: Any) -> Any:
        """What rank 0 gave; the others wait for it, however long that takes."""
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._commands)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """What every rank gave, in their order."""
        held = [None] * self.size
        dist.all_gather_object(held, value, group=self._commands)
        return held

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, put in the place of the tensor."""
        dist.all_reduce(tensor)
        return tensor

    def copy_from_first(self, tensor: Tensor) -> None:
        """Put what rank 0 has in the place of the tensor."""
        dist.broadcast(tensor, src=0)

    def report(self, message: str) -> None:
        """Tell rank 0, before this process ends, why it does."""
        with contextlib.suppress(RuntimeError):  # rank 0 may be gone, and with it whom to tell
            if self._store.add(f"{_FAILURES}/count", 1) == 1:
                self._store.set(f"{_FAILURES}/first", json.dumps([self.rank, message]))

    def explain(self, error: Exception) -> Exception:
        """Why a command could not be carried out, given the error that this process saw.

        A broken connection says nothing; the process at its other end, or the one that watched it, may.
        """
        if isinstance(error, LthError) or not is_connection(error):
            return error
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            if lost := self._failure():
                return RankLost(lost)
            time.sleep(_POLL_SECONDS)
        return RankLost(f"the connection to another process of this training broke: {_brief(error)}")

    def _failure(self) -> str | None:
        with contextlib.suppress(RuntimeError):
            if self._store.check([f"{_FAILURES}/first"]):
                rank, message = json.loads(self._store.get(f"{_FAILURES}/first"))
                return f"rank {rank}: {message}"
        return self.find_lost()

    @staticmethod
    def leave() -> None:
        """Take the connections down; the others must have no need of this process any more."""
        dist.destroy_process_group()


def is_connection(error: Exception) -> bool:
    """Whether an error is of torch's connections, and so may be another process's fault."""
    return isinstance(error, RuntimeError) and bool(_CONNECTION.search(str(error)))


def _brief(error: Exception) -> str:
    return re.sub(r"^\[[^\]]*\] ", "", str(error).splitlines()[0])


def leave_process(code: int) -> NoReturn:
    """End this process at once: after Gloo was used, the interpreter may abort while it shuts down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)
