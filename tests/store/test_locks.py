import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lth_cli.config.errors import RequestError
from lth_cli.store.files import WriteFailed
from lth_cli.store.holder import Holder, Life
from lth_cli.store.locks import Lock, Locked

ROOT = Path(__file__).parents[2]


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


HOLD = """
import sys, time
from pathlib import Path
from lth_cli.store.locks import Lock
with Lock(Path(sys.argv[1])).acquire():
    print("held", flush=True)
    time.sleep(60)
"""


def held_elsewhere(path):
    process = start(HOLD, path)
    assert process.stdout.readline() == "held\n"
    return process


def plant(path, **changes):
    """A lock file of somebody else."""
    holder = dataclasses.replace(Holder.me(), **changes)
    path.write_bytes(holder.content())
    return holder


def test_held_released_and_nothing_left(tmp_path):
    path = tmp_path / "made" / ".lock"
    lock = Lock(path)
    with lock.acquire():
        assert lock.still_ours()
        assert lock.holder.pid == os.getpid()
        assert lock.holder.life is Life.ALIVE
        with pytest.raises(RuntimeError, match="held already"):
            lock.acquire()
    assert not lock.still_ours()
    assert list(path.parent.iterdir()) == []
    with lock:
        assert lock.still_ours()


def test_second_process_is_told_who_holds_it(tmp_path):
    process = held_elsewhere(tmp_path / "l")
    try:
        with pytest.raises(Locked, match=rf"run x is in use by pid {process.pid} on .+ since 20") as caught:
            Lock(tmp_path / "l", "run x").acquire()
        assert isinstance(caught.value, RequestError)
    finally:
        process.kill()
        process.wait()


def test_killed_holder_is_replaced_at_once_even_before_it_is_reaped(tmp_path):
    process = held_elsewhere(tmp_path / "l")
    process.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # a zombie now: nobody has waited for it
    with Lock(tmp_path / "l").acquire() as lock:
        assert lock.still_ours()
    process.wait()
    assert list(tmp_path.iterdir()) == []


def test_suspended_holder_keeps_its_lock(tmp_path):
    process = held_elsewhere(tmp_path / "l")
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Locked):
            Lock(tmp_path / "l", stale_after=0.1).acquire()
    finally:
        process.kill()
        process.wait()


def test_process_id_used_again(tmp_path):
    plant(tmp_path / "l", started="1")
    with Lock(tmp_path / "l").acquire() as lock:
        assert lock.still_ours()


@pytest.mark.parametrize(
    "changes",
    [{"host": "elsewhere"}, {"boot": "other"}, {"namespace": "pid:[1]"}, {"started": None}, {"boot": None}],
)
def test_unknown_holder_is_dead_only_once_its_heartbeat_stops(tmp_path, changes):
    path = tmp_path / "l"
    plant(path, pid=2**22 + 5, **changes)
    os.utime(path, (0, 0))  # the age of the file is no evidence
    told = []
    begin = time.monotonic()
    with Lock(path, stale_after=0.5).acquire(on_wait=told.append):
        assert time.monotonic() - begin >= 0.5
    assert len(told) == 1


def test_unknown_holder_that_beats_is_alive(tmp_path):
    path = tmp_path / "l"
    plant(path, host="elsewhere")
    timer = threading.Timer(0.3, os.utime, [path])
    timer.start()
    with pytest.raises(Locked, match="on elsewhere"):
        Lock(path, stale_after=5).acquire()
    timer.join()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 9999, b'{"pid": 3}', b"\xff"])
def test_damaged_lock_goes_stale(tmp_path, content):
    (tmp_path / "l").write_bytes(content)
    with Lock(tmp_path / "l", "run x", stale_after=0.2).acquire() as lock:
        assert lock.still_ours()
    assert list(tmp_path.iterdir()) == []


def test_hostile_token_names_no_file(tmp_path):
    plant(tmp_path / "l", token="../../x", pid=2**22 + 5)
    with Lock(tmp_path / "l", stale_after=0.1).acquire():
        pass
    assert list(tmp_path.iterdir()) == []


def test_heartbeat_touches_the_file(tmp_path):
    path = tmp_path / "l"
    with Lock(path, heartbeat=0.05).acquire():
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert path.stat().st_mtime > 1e9


def test_writer_learns_that_its_lock_was_taken(tmp_path):
    path = tmp_path / "l"
    lock = Lock(path, heartbeat=0.05).acquire()
    other = plant(path, host="elsewhere")
    assert not lock.still_ours()
    lock.release()
    assert Holder.read(path) == other
    path.unlink()
    assert not lock.still_ours()


def test_waiting(tmp_path):
    path = tmp_path / "l"
    first = Lock(path).acquire()
    told = []
    timer = threading.Timer(0.3, first.release)
    timer.start()
    with Lock(path).acquire(wait=True, on_wait=told.append) as lock:
        assert lock.still_ours()
        assert [holder.pid for holder in told] == [os.getpid()]
        asked = iter([False, False, True])
        with pytest.raises(Locked):
            Lock(path).acquire(wait=True, should_stop=lambda: next(asked))
    timer.join()


def test_a_forked_child_does_not_release(tmp_path):
    lock = Lock(tmp_path / "l").acquire()
    child = os.fork()
    if child == 0:
        code = 1 if lock.still_ours() else 0
        lock.release()
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.still_ours()
    lock.release()


def test_dead_claimants_at_every_stage_are_taken_over(tmp_path):
    """A holder died, then a claimant before replacing it, then another while claiming that claim."""
    path = tmp_path / "l"
    dead = plant(path, started="1")
    claimant = plant(tmp_path / f"l.claim-{dead.token}", started="2")
    plant(Lock(path)._claim_on(tmp_path / f"l.claim-{dead.token}", claimant), started="3")
    plant(tmp_path / "l.claim-of-another-time", started="4")
    plant(tmp_path / "l.new-1", started="5")
    (tmp_path / "l.new-2").write_text("")
    with Lock(path).acquire() as lock:
        assert lock.still_ours()
        assert [p.name for p in tmp_path.iterdir()] == ["l"]


def test_live_claimant_is_left_alone(tmp_path):
    path = tmp_path / "l"
    dead = plant(path, started="1")
    plant(tmp_path / f"l.claim-{dead.token}")
    with pytest.raises(Locked):
        Lock(path).acquire(should_stop=lambda: True)
    assert Holder.read(path) == dead


def test_late_waiter_gives_up_when_the_lock_changed_hands(tmp_path, monkeypatch):
    path = tmp_path / "l"
    plant(path, started="1")
    lock = Lock(path)
    late = []

    def judged_dead_then_slow(self, judged, holder):
        late.append(plant(path))  # somebody alive took it between judgement and claim
        return True

    monkeypatch.setattr(Lock, "_dead", judged_dead_then_slow)
    with pytest.raises(Locked):
        lock.acquire(should_stop=lambda: True)
    assert Holder.read(path) == late[0]
    assert [p.name for p in tmp_path.iterdir()] == ["l"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_without_hard_links(tmp_path, monkeypatch, number):
    def no_link(*_):
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", no_link)
    plant(tmp_path / "l", started="1")
    with Lock(tmp_path / "l").acquire() as lock:
        assert lock.still_ours()
        with pytest.raises(Locked):
            Lock(tmp_path / "l").acquire()
    assert list(tmp_path.iterdir()) == []


def test_lock_that_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteFailed, match="disk full"):
        Lock(tmp_path / "l").acquire()
    assert list(tmp_path.iterdir()) == []


COUNT = """
import sys
from pathlib import Path
from lth_cli.store.locks import Lock
folder, times = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(times):
    with Lock(folder / "l").acquire(wait=True):
        counter = folder / "counter"
        value = int(counter.read_text())
        (folder / "inside").mkdir()
        counter.write_text(str(value + 1))
        (folder / "inside").rmdir()
"""

DIE = """
import os, sys
from pathlib import Path
from lth_cli.store.locks import Lock
folder, times = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(times):
    if os.fork() == 0:
        Lock(folder / "l").acquire(wait=True)
        counter = folder / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
        os._exit(9)
    os.wait()
"""


@pytest.mark.parametrize(("code", "times"), [(COUNT, 150), (DIE, 60)])
def test_processes_racing_for_one_lock_lose_no_count(tmp_path, code, times):
    """The counter is read and written apart; holders release (first) or die holding it (second)."""
    (tmp_path / "counter").write_text("0")
    processes = [start(code, tmp_path, times) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert int((tmp_path / "counter").read_text()) == 3 * times


CHECK = """
import os, sys
from pathlib import Path
from lth_cli.store.locks import Lock
folder = Path(sys.argv[1])
inside = folder / "inside"
while True:
    with Lock(folder / "l").acquire(wait=True) as lock:
        before = int(inside.read_text() or 0) if inside.exists() else 0
        state = Path(f"/proc/{before}/stat")
        if before and state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "ZX":
            (folder / "broken").write_text(f"{before} and {os.getpid()} at once")
        inside.write_text(str(os.getpid()))
        assert lock.still_ours()
        inside.unlink()
        with (folder / "entries").open("a") as entries:
            entries.write(".")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kills_at_any_instant_neither_break_the_lock_nor_leave_it_stuck(tmp_path):
    """Holders, waiters and claimants are killed at random instants; never are two inside at once."""
    processes = [start(CHECK, tmp_path) for _ in range(3)]
    try:
        time.sleep(1.0)
        for turn in range(12):
            time.sleep(0.05 + 0.013 * turn)
            processes[turn % 3].kill()
            processes[turn % 3].wait()
            processes[turn % 3] = start(CHECK, tmp_path)
        entered = (tmp_path / "entries").stat().st_size
        time.sleep(2.0)
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not (tmp_path / "broken").exists()
    assert (tmp_path / "entries").stat().st_size > entered
    with Lock(tmp_path / "l").acquire():
        assert {p.name for p in tmp_path.iterdir()} <= {"l", "entries", "inside"}


def test_a_holder_that_died_while_giving_back_is_taken_over(tmp_path):
    """It has the lock, and the claim on it too."""
    lock = Lock(tmp_path / "lock")
    dead = plant(lock.path, started="1")
    plant(tmp_path / f"lock.claim-{dead.token}", started="1", token=dead.token)
    with lock.acquire():
        assert lock.still_ours()
    assert list(tmp_path.iterdir()) == []
