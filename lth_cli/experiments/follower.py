"""A process of rank 1 or above: it joins the training that rank 0 leads, and leaves with it.

`python -m lth_cli.experiments.follower FOLDER RANK SIZE DEVICE` is how rank 0 starts one on its own machine.
"""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.distributed import DistStoreError, FileStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from lth_cli.data.batches import Data
from lth_cli.experiments.plan import load_data
from lth_cli.experiments.processes import LOST, launcher_store, meeting_key
from lth_cli.experiments.torchrun import Launched
from lth_cli.training.parallel import follow
from lth_cli.training.precision import Execution
from lth_cli.training.ranks import Ranks, is_connection, leave_process
from lth_cli.training.recipe import Loading, Recipe

_LAST_SECONDS = 5.0
_POLL = datetime.timedelta(minutes=1)


class _Prepared:
    """Data of the recipe before, to be used again where they are the same."""

    def __init__(self, place: Launched) -> None:
        self._place = place
        self._key: tuple[Loading, Execution] | None = None
        self._data: Data

    def __call__(self, told: dict[str, Any]) -> Recipe:
        execution = told["execution"].of_rank(self._place.local_rank, self._place.local_size)
        execution.set_up()
        key = (told["loading"], execution)
        if key != self._key:
            self._data, self._key = load_data(told["loading"], execution), key
        return Recipe(**{**told, "execution": execution, "data": self._data})


def _serve(store: Store, place: Launched, device: str, prepared: _Prepared) -> int:
    """Follow rank 0 through one run; returns the exit code."""
    local = torch.device(device, place.local_rank) if device == "cuda" else torch.device(device)
    ranks: Ranks | None = None
    try:
        ranks = Ranks(store, place.rank, place.size, local)
        follow(ranks, prepared)
    except Exception as error:  # noqa: BLE001 - whatever it is, rank 0 is told
        if is_connection(error):
            return LOST
        if ranks is not None:
            ranks.report(str(error) or type(error).__name__)
        return 1
    return 0


def follow_local(folder: Path, rank: int, size: int, device: str) -> NoReturn:
    """Follow the process that started this one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 gets it too, and says what to do
    watch = threading.Thread(target=_watch_parent, args=(folder,), daemon=True)
    watch.start()
    place = Launched(rank, size, local_rank=rank, local_size=size)
    store = FileStore(str(folder / "store"), size)
    code = _serve(store, place, device, _Prepared(place))
    if code == LOST:
        watch.join(_LAST_SECONDS)  # if it was rank 0 that has gone, this ends the process
    leave_process(code)


def _watch_parent(folder: Path) -> None:
    """Leave at once when rank 0 has ended, since its end of the pipe closes then; killed, it left its folder."""
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(LOST)


def follow_launcher(place: Launched) -> NoReturn:
    """Follow rank 0 of the processes that torchrun started, through all its runs."""
    store, prepared, number, code = launcher_store(), _Prepared(place), 0, 0
    while code == 0 and (device := _next_meeting(store, number)):
        # A stop is for all processes of the launcher at once; rank 0 stores the state and ends the work.
        before = [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]
        code = _serve(PrefixStore(f"lth/{number}", store), place, device, prepared)
        for signal_, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(signal_, handler)
        number += 1
    leave_process(code)


def _next_meeting(store: Store, number: int) -> str:
    """On which kind of device rank 0 wants to meet; empty when it is done. Waits as long as it takes."""
    while True:
        try:
            store.wait([meeting_key(number)], _POLL)
            return str(store.get(meeting_key(number)).decode())
        except DistStoreError:  # nothing yet
            continue
        except RuntimeError:  # a launcher without a store of its own: rank 0 kept it, and has ended
            return ""


if __name__ == "__main__":
    follow_local(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
