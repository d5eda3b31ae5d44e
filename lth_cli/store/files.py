"""Files that appear whole or not at all, canonical JSON and checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from lth_cli.config.errors import LthError
from lth_cli.store.formats import check_format

TEMPORARY = ".tmp-"
JSON_LIMIT = 64 * 2**20
_Result = TypeVar("_Result")
_CHUNK = 2**20
_NO_LINKS = {
    errno.EPERM,
    errno.EXDEV,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EACCES,
}
_TRIES = 10  # somebody may delete a folder while we fill it, but not ten times in a row
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "the folder is gone",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EIO: "input/output error of the disk",
    errno.ESTALE: "the network file system lost the folder",
}


class WriteFailed(LthError):
    """A file could not be written; what stood at `path` before is still there, whole."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path = path
        self.errno = error.errno
        super().__init__(f"cannot write {path}: {_reason(error)}")


class ReadFailed(LthError):
    """A file could not be read for a reason that says nothing about its content."""

    def __init__(self, path: Path, error: OSError | MemoryError) -> None:
        self.path = path
        super().__init__(f"cannot read {path}: {_reason(error)}")


class Gone(ReadFailed):
    """A file is not there, or not any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, OSError(0, "no such file"))


class Damaged(LthError):
    """A file does not hold what was written there."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} is damaged: {reason}")


def _reason(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into WriteFailed for `path`."""
    try:
        yield
    except OSError as error:
        raise WriteFailed(path, error) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of reading `path` into Damaged (a bad disk block), Gone, or ReadFailed (anything else)."""
    try:
        yield
    except MemoryError as error:
        raise ReadFailed(path, error) from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Damaged(path, _reason(error)) from error
        if error.errno == errno.ENOENT:
            raise Gone(path) from error
        raise ReadFailed(path, error) from error


def temporary(path: Path) -> Path:
    """A new name beside `path` that every reader ignores and `remove_leftovers` deletes."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:  # some network file systems cannot, and order names themselves
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably, also while somebody deletes them. Raises WriteFailed."""
    with writing(folder):
        for _ in range(_TRIES):
            try:
                _make_folder(folder)
                return
            except FileNotFoundError:
                continue
        _make_folder(folder)


def _make_folder(folder: Path) -> None:
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def write_within(folder: Path, write: Callable[[], _Result]) -> _Result:
    """Do what writes into a folder, made where it is missing, and again where it was deleted in between.

    Raises:
        WriteFailed: it cannot be written, or is deleted faster than it is.
    """
    for _ in range(_TRIES):
        make_folder(folder)
        try:
            return write()
        except WriteFailed as error:
            if error.errno != errno.ENOENT:
                raise
    make_folder(folder)
    return write()


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where there is no such folder, or none any more."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by the joined chunks, atomically and durably. Raises WriteFailed."""
    partial = temporary(path)
    with writing(path):
        try:
            # not tempfile.mkstemp: its mode 0600 would hide results from the group a shared folder belongs to
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                for chunk in chunks:
                    write_all(descriptor, chunk)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(path)
        finally:  # gone already when all went well
            with contextlib.suppress(OSError):
                partial.unlink()
        sync_folder(path.parent)


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write all of a chunk, which one write(2) need not do. Raises OSError."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically and durably. Raises WriteFailed."""
    write_chunks(path, [content])


def write_text(path: Path, content: str) -> None:
    """Replace `path` by `content` in UTF-8, atomically and durably. Raises WriteFailed."""
    write_chunks(path, [content.encode()])


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by indented JSON, atomically. Raises WriteFailed; ValueError on NaN or infinity."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_bytes(path: Path, limit: int = JSON_LIMIT) -> bytes:
    """The content of a file of at most `limit` bytes. Raises Damaged when larger, ReadFailed."""
    with reading(path), path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Damaged(path, f"larger than the {limit:,} bytes such a file can have")
    return content


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """The value in a JSON file. Raises Damaged when malformed or larger than `limit` bytes, ReadFailed."""
    return parse_json(path, read_bytes(path, limit))


def parse_json(path: Path, content: bytes) -> Any:
    """The value of a JSON text read from `path`. Raises Damaged when it is malformed."""
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"not JSON ({error})") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, fixed separators, ASCII. Raises ValueError on NaN or inf."""
    # through JSON once first: integer keys would sort in another order than the strings they are read back as
    plain = json.loads(json.dumps(value, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of the canonical JSON of a value. Raises ValueError on NaN or infinity."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with its own checksum. Raises WriteFailed; ValueError on NaN or infinity."""
    open_ = {key: value for key, value in content.items() if key != "checksum"}
    write_json(path, {**open_, "checksum": digest(open_)})


def read_sealed(path: Path, newest: int = 1) -> dict[str, Any]:
    """Read a JSON object and check it.

    Args:
        path: of the file.
        newest: the highest number of its format that can be read.

    Raises:
        Damaged, ReadFailed, NewerFormat.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise Damaged(path, "not a JSON object")
    check_format(path, content, newest)
    checksum = content.pop("checksum", None)
    if checksum != digest(content):
        raise Damaged(path, "its content does not match its checksum")
    return content


def sha256_file(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's bytes. Raises ReadFailed, Damaged."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` (hard link), or a copy where links are impossible; atomic.

    Raises:
        WriteFailed: when the target cannot be written.
        ReadFailed: when the source cannot be read.
    """
    with reading(source):
        source.stat()
    with writing(target):
        # rename(2) does nothing between two names of one file, so this case cannot go through it
        if target.exists() and target.samefile(source):
            return
        partial = temporary(target)
        try:
            os.link(source, partial)
        except OSError as error:
            if error.errno == errno.ENOENT and not source.exists():  # deleted since we looked
                raise Gone(source) from error
            if error.errno not in _NO_LINKS:
                raise
            _copy(source, target)
            return
        try:
            partial.replace(target)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
        sync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        write_chunks(target, iter(lambda: file.read(_CHUNK), b""))


def remove_leftovers(folder: Path, but: str | None = None) -> None:
    """Delete what killed writers left in a folder; only for whoever holds its lock. Raises WriteFailed.

    Args:
        folder: looked through to the bottom.
        but: name of a folder in it that is left alone.
    """
    with writing(folder):
        # not rglob, which fails where somebody deletes what it is about to look at
        for parent, folders, names in os.walk(folder):
            if Path(parent) == folder and but in folders:
                folders.remove(but)
            for name in (*folders, *names):
                if name.startswith(TEMPORARY):
                    remove_tree(Path(parent, name))


def remove_tree(path: Path) -> None:
    """Delete a file or a folder, following no link; nothing there is fine. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # somebody else deletes it too
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
