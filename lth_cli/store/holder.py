"""Who holds a lock, and what can be known of whether they still live."""

from __future__ import annotations

import datetime
import enum
import hashlib
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_LIMIT = 2**16


class Life(enum.Enum):
    """What this process can tell of another one without waiting."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # another machine, another container, or a damaged lock: only heartbeats tell


@dataclass(frozen=True)
class Holder:
    """The content of a lock file.

    A process is known by host, boot, process-id namespace, process id and start time together: host names
    repeat between containers, process ids repeat between namespaces and after a while.
    """

    host: str
    boot: str | None
    namespace: str | None
    pid: int
    started: str | None
    since: str
    token: str

    @classmethod
    def me(cls) -> Holder:
        """This process, with a new token."""
        return cls(
            host=socket.gethostname(),
            boot=_boot(),
            namespace=_namespace(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            since=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            token=secrets.token_hex(16),
        )

    @classmethod
    def parse(cls, content: bytes) -> Holder:
        """Read a lock file; a damaged or half-written one gives a holder of unknown life."""
        try:
            values = json.loads(content)
            holder = cls(**{field.name: values[field.name] for field in fields(cls)})
            if isinstance(holder.pid, int) and holder.pid > 0 and _is_token(holder.token):
                return holder
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        # the content names it, so that a change of content is a change of holder
        token = hashlib.sha256(content).hexdigest()[:32]
        return cls("an unknown host", None, None, 0, None, "an unknown time", token)

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """The holder named in a lock file; None when there is no such file. Raises OSError."""
        try:
            with path.open("rb") as file:
                return cls.parse(file.read(_LIMIT))
        except FileNotFoundError:
            return None

    def content(self) -> bytes:
        """What the lock file holds."""
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"

    @property
    def life(self) -> Life:
        """Whether the process lives, as far as this machine's own process table tells.

        A missing process id means death only under the same boot and the same namespace of process ids.
        """
        here = (self.host, self.boot, self.namespace) == (socket.gethostname(), _boot(), _namespace())
        if not here or None in (self.boot, self.namespace, self.started):
            return Life.UNKNOWN
        return Life.ALIVE if _started(self.pid) == self.started else Life.DEAD

    @property
    def rebooted(self) -> bool:
        """Whether this host has been restarted since, as far as its name tells one host from another."""
        return self.host == socket.gethostname() and None not in (self.boot, _boot()) and self.boot != _boot()

    def __str__(self) -> str:
        """As told to a person."""
        return f"pid {self.pid} on {self.host} since {self.since}"


def _is_token(value: object) -> bool:
    """Tokens become parts of file names."""
    return isinstance(value, str) and len(value) == 32 and value.isascii() and value.isalnum()


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process; None when there is none, or only a zombie of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the command name before the last parenthesis may hold anything; state and start time are fields 3 and 22
    after = stat.rpartition(")")[2].split()
    return None if after[0] in "ZXx" else after[19]
