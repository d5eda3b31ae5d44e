"""A lock file that one process holds at a time, also over a network file system, and that outlives no holder.

How a lock changes hands. `link(2)` of a complete file makes the lock appear, with its content, for exactly
one process. Every lock has a holder with a random token, and the file with token X may be replaced or
removed only by the owner of the file `<lock>.claim-X`, which is itself made by link(2); so between the
owner's look at the lock ("is it still X?") and its rename over it, nobody else can have changed it. The
holder needs the claim for its own release too. Without claims, two waiters that both judge X dead could
follow each other: the first replaces X by its own live lock, the second, late, renames that one away. With
them:

- Two waiters judge X dead: one gets the claim and replaces X; the other waits on.
- A waiter stalls between its judgement and the claim: it gets the claim later, sees that the lock is not X,
  and gives up.
- The holder was only slow, and releases while being replaced: one has the claim, the other does nothing.
- A claimant dies: its claim is a file with a dead holder, taken over by the same rule (a claim on the
  claim).
- A claimant dies after replacing X: its claim is litter, as X never comes back; the next holder sweeps it.

Who is dead: a process of this machine (same boot and process-id namespace) that is not there; any other,
when its heartbeat (the lock file's mtime) has not moved for `stale_after` seconds of the *observer's*
monotonic clock. The clocks of two machines are never compared. A process of this machine that is there, if
only suspended, keeps its lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from lth_cli.config.errors import RequestError
from lth_cli.store.files import make_folder, reading, writing
from lth_cli.store.holder import Holder, Life

_FIRST_POLL, _LONGEST_POLL = 0.05, 1.0
_TELL_EVERY = 5.0
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Locked(RequestError):
    """Another process holds the lock."""

    def __init__(self, subject: str, holder: Holder | None) -> None:
        self.holder = holder
        super().__init__(f"{subject} is in use by {holder or 'another process'}")


class Lock:
    """A lock file, held from `acquire` to `release` or the end of a `with` block.

    Args:
        path: the lock file; its folder is made when missing.
        subject: what it protects, for messages.
        heartbeat: seconds between touches of the file while held.
        stale_after: seconds without a touch after which a holder of unknown life counts as dead.
    """

    def __init__(
        self, path: Path, subject: str | None = None, *, heartbeat: float = 5.0, stale_after: float = 60.0
    ) -> None:
        self.path = path
        self.subject = subject or str(path)
        self._heartbeat = heartbeat
        self._stale_after = stale_after
        self._mine: Holder | None = None
        self._stop = threading.Event()
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}  # what stood where, since when
        self._moved = False  # whether the last try saw a heartbeat

    @property
    def holder(self) -> Holder | None:
        """Who holds the lock now, dead or alive; None when it is free. Raises ReadFailed, Damaged."""
        with reading(self.path):
            return Holder.read(self.path)

    def acquire(
        self,
        wait: bool = False,
        on_wait: Callable[[Holder], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Lock:
        """Take the lock, from a dead holder too; returns itself, for `with lock.acquire(...):`.

        Args:
            wait: wait for a live holder to release it. Without, a holder whose life cannot be told at once
                (another machine) is still watched until its next heartbeat, or until it is stale.
            on_wait: told the holder once waiting begins and every few seconds after.
            should_stop: asked at every poll; True ends the wait.

        Raises:
            Locked: somebody else holds it (no wait, or told to stop).
            WriteFailed: the lock file cannot be written.
            RuntimeError: this object holds it already.
        """
        if self._mine is not None:
            raise RuntimeError(f"{self.path} is held already by this object")
        mine = Holder.me()
        poll, told = _FIRST_POLL, -_TELL_EVERY
        self._seen.clear()
        while not self._try(mine):
            holder = self.holder
            beating = holder is not None and (holder.life is Life.ALIVE or self._moved)
            if (beating and not wait) or (should_stop is not None and should_stop()):
                raise Locked(self.subject, holder)
            if holder is not None and on_wait is not None and time.monotonic() - told >= _TELL_EVERY:
                on_wait(holder)
                told = time.monotonic()
            time.sleep(poll * random.uniform(0.5, 1.0))  # waiters out of step with each other
            poll = min(poll * 1.5, _LONGEST_POLL)
        self._mine = mine
        self._sweep(mine)
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(mine, self._stop), daemon=True).start()
        return self

    def release(self) -> None:
        """Give the lock back; nothing happens in a forked child, or when it was taken over meanwhile."""
        mine, self._mine = self._mine, None
        self._stop.set()
        if mine is None or mine.pid != os.getpid():
            return
        # failing here must not hide the outcome of the work: once this process ends, the lock can be taken
        with contextlib.suppress(OSError):
            claim = self._claim_on(self.path, mine)
            if self._win(claim, mine):
                if self._token(self.path) == mine.token:
                    self.path.unlink()
                claim.unlink(missing_ok=True)

    def still_ours(self) -> bool:
        """Whether this process still holds the lock: ask before writing what the lock protects."""
        mine = self._mine
        if mine is None or mine.pid != os.getpid():
            return False
        try:
            return self._token(self.path) == mine.token
        except OSError:
            return False

    def __enter__(self) -> Lock:
        """Take the lock without waiting, unless `acquire` has taken it already."""
        return self if self._mine is not None else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try(self, mine: Holder) -> bool:
        """Take the lock if it is free or its holder dead."""
        self._moved = False
        make_folder(self.path.parent)
        with writing(self.path):
            try:
                return self._win(self.path, mine)
            except FileNotFoundError:  # somebody deletes the folder: try again
                return False

    def _win(self, path: Path, mine: Holder) -> bool:
        """Make `path` our file: create it, or replace that of a dead holder under the claim on it."""
        if self._create(path, mine):
            return True
        rival = Holder.read(path)
        if rival is None or not self._dead(path, rival):
            return False
        claim = self._claim_on(path, rival)
        if not self._win(claim, mine):
            return False
        try:
            if self._token(path) != rival.token:
                return False
            partial = self._partial(mine)
            try:
                partial.replace(path)
            except FileNotFoundError:  # swept
                return False
            finally:
                partial.unlink(missing_ok=True)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _create(self, path: Path, mine: Holder) -> bool:
        """Create `path` for us, if nobody has."""
        if path.exists():  # the common case of a waiter, without a write
            return False
        partial = self._partial(mine)
        try:
            os.link(partial, path)
        except FileExistsError:
            # a network file system may have made the link and lost the answer
            return self._token(path) == mine.token
        except FileNotFoundError:  # a new holder swept our partial file, or the folder went: try again
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_unlinked(path, mine)
        finally:
            partial.unlink(missing_ok=True)
        return True

    @staticmethod
    def _create_unlinked(path: Path, mine: Holder) -> bool:
        """For file systems without hard links: exclusive as well, but empty (life unknown) for a moment."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(mine.content())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    @staticmethod
    def _token(path: Path) -> str | None:
        holder = Holder.read(path)
        return holder.token if holder is not None else None

    def _partial(self, mine: Holder) -> Path:
        # not a name that `remove_leftovers` deletes: the holder may run that while others try to get in
        partial = self.path.with_name(f"{self.path.name}.new-{secrets.token_hex(8)}")
        try:
            partial.write_bytes(mine.content())
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return partial

    def _claim_on(self, path: Path, holder: Holder) -> Path:
        """The claim on what `holder` has at `path`; a claim on a claim never has a name that is there already.

        A holder that died while giving its lock back has both the lock and the claim on it.
        """
        token = holder.token
        if path != self.path:
            token = hashlib.sha256(f"{path.name} {token}".encode()).hexdigest()[:32]
        return self.path.with_name(f"{self.path.name}.claim-{token}")

    def _dead(self, path: Path, holder: Holder) -> bool:
        """Whether a holder is dead; of unknown life, once its heartbeat has not moved while we watched."""
        life = holder.life
        if life is not Life.UNKNOWN:
            return life is Life.DEAD
        try:
            now = (holder.token, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return False
        seen, since = self._seen.get(path, (None, 0.0))
        if seen != now:
            self._moved = seen is not None
            self._seen[path] = (now, time.monotonic())
            return False
        return time.monotonic() - since >= self._stale_after

    def _sweep(self, mine: Holder) -> None:
        """Remove claims on tokens the lock no longer has, and partial files of nobody known to live.

        An owner of such a claim will give up; one who still lived and lost a partial file tries again.
        """
        for claim in self.path.parent.glob(f"{self.path.name}.claim-*"):
            if claim != self._claim_on(self.path, mine):
                with contextlib.suppress(OSError):
                    claim.unlink()
        for partial in self.path.parent.glob(f"{self.path.name}.new-*"):
            with contextlib.suppress(OSError):
                maker = Holder.read(partial)
                if maker is not None and maker.life is not Life.ALIVE:
                    partial.unlink()

    def _beat(self, mine: Holder, stop: threading.Event) -> None:
        while not stop.wait(self._heartbeat):
            try:
                if self._token(self.path) != mine.token:
                    return
                os.utime(self.path)
            except OSError:  # the network may come back; still_ours() tells the writer the truth meanwhile
                continue
