"""Reading the files of an archive one after another, without unpacking anything to disk."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lth_cli.config.errors import ConfigError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
LARGEST_FILE = 2**28
"""Bytes of one unpacked file; no photograph is larger, but what an archive bomb unpacks to is."""

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # a password, or a way of packing that zipfile has not
)


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def names(path: Path) -> list[str]:
    """The names of all files of an archive, after checking that the archive is harmless.

    Raises:
        ConfigError: as `files`.
    """
    found = [name for name, _ in _entries(path, lambda _: False)]
    for name, count in Counter(found).items():
        if count > 1:
            raise ConfigError(("dataset.path", f"{path} holds {name!r} {count} times"))
    return found


def files(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The wanted files of an archive as (name, content), in the archive's order.

    Raises:
        ConfigError: when the archive is damaged, or holds an absolute name, a name with `..`, a link, a
            device or an unreasonably large file.
    """
    return ((name, content) for name, content in _entries(path, wanted) if content is not None)


def _entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """Every regular file as (name, content), the content None when it is not wanted."""
    try:
        yield from (_zip_entries if path.name.lower().endswith(".zip") else _tar_entries)(path, wanted)
    except _DAMAGE as error:
        raise ConfigError(("dataset.path", f"the archive {path} cannot be read: {error}")) from error


def _tar_entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = _safe_name(path, member.name)
            if member.isdir():
                continue
            if not member.isfile():
                _refuse(path, name, "is a link" if member.issym() or member.islnk() else "is a device")
            content = None
            if wanted(name):
                _check_size(path, name, member.size)
                file = archive.extractfile(member)
                content = file.read() if file else b""
            yield name, content


def _zip_entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _safe_name(path, member.filename)
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in {0, stat.S_IFREG}:
                _refuse(path, name, "is a link" if kind == stat.S_IFLNK else "is a device")
            content = None
            if wanted(name):
                _check_size(path, name, member.file_size)
                content = archive.read(member)
            yield name, content


def _safe_name(path: Path, name: str) -> str:
    """The name without a leading `./`; an archive that reaches outside itself is not trusted."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        _refuse(path, name, "points outside the archive")
    if not parts[0] or re.match(r"[A-Za-z]:", name):
        _refuse(path, name, "is an absolute name")
    return name.removeprefix("./")


def _check_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST_FILE:
        _refuse(path, name, f"unpacks to {size} bytes, more than the {LARGEST_FILE} allowed")


def _refuse(path: Path, name: str, reason: str) -> None:
    message = f"{path} is refused: {name!r} {reason}; make an archive of plain image files"
    raise ConfigError(("dataset.path", message))
