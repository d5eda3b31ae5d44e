"""What torchrun, or another launcher that sets the same variables, says about this process."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launched:
    """This process among those that a launcher started.

    Attributes:
        rank: its number.
        size: how many there are.
        local_rank: its number on this machine.
        local_size: how many are on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def launched() -> Launched | None:
    """This process's place; None when it was started by hand, or alone."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    meeting_point = {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if not (meeting_point and rank.isdecimal() and size.isdecimal() and int(size) > 1):
        return None
    local_rank, local_size = os.environ.get("LOCAL_RANK", rank), os.environ.get("LOCAL_WORLD_SIZE", size)
    return Launched(int(rank), int(size), int(local_rank), int(local_size))
