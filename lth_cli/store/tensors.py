"""Safetensors files that verify themselves: deterministic bytes, and a SHA-256 of the content in the header.

Written here, because the safetensors library promises no order of metadata and its bytes could change with a
release; read through the library, whose parser checks every offset before it is used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors

from lth_cli.store.files import Damaged, ReadFailed, canonical, reading, write_chunks
from lth_cli.store.formats import check_format

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Of the files written; lower ones are read too."""
FORMAT_WITH_MASKS = 2
"""Of states that hold masks or memory."""
FORMAT_PARTIAL = 3
"""Of states whose optimizer was left out, so that no training can go on from them."""
_NEWEST = {"state": FORMAT_PARTIAL}
_HEADER_LIMIT = 64 * 2**20
_ENTRY = "lth"  # one metadata entry with canonical JSON: several would have no fixed order


@functools.cache
def _dtypes() -> dict[Any, str]:
    """Names of the format by dtype; commands that read headers alone do without torch."""
    import torch

    return {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }


def write_tensors(
    path: Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    number: int | None = None,
) -> None:
    """Write tensors and a JSON-able description, atomically; the same content gives the same bytes.

    Args:
        path: of the file.
        kind: what it is a file of.
        tensors: by name.
        about: the description.
        number: of the format; None is `FORMAT`.

    Raises:
        WriteFailed: the file could not be written.
        ValueError: a dtype that cannot be stored, or a description that is not JSON.
    """
    views = {key: _bytes_of(tensor) for key, tensor in tensors.items()}
    meta: dict[str, Any] = {**about, "format": FORMAT if number is None else number, "kind": kind}
    meta["content"] = _content(tensors, views, meta)
    header: dict[str, Any] = {"__metadata__": {_ENTRY: canonical(meta)}}
    # widest dtype first keeps every tensor aligned, as the format asks
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    offset = 0
    for key in order:
        end = offset + len(views[key])
        header[key] = {
            "dtype": _dtypes()[tensors[key].dtype],
            "shape": list(tensors[key].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = canonical(header).encode()
    text += b" " * (-len(text) % 8)
    write_chunks(path, [len(text).to_bytes(8, "little"), text, *(views[key] for key in order)])


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `write_tensors` onto the CPU, and verify all of it. Never unpickles.

    Raises:
        Damaged: anything differs from what was written, or the file is of another kind.
        NewerFormat: the file is of a later format, whole or not.
        ReadFailed: the file cannot be read.
    """
    import safetensors.torch

    with reading(path), path.open("rb") as file:
        meta = _header(path, file)
        file.seek(0)
        content = file.read()
    with _parsing(path):
        tensors = safetensors.torch.load(content)
    del content  # the tensors are copies: a state need not lie in memory twice while it is hashed
    return _verified(path, kind, tensors, meta)


def map_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `read_tensors`, but the tensors are views of the file: read only, and paged in as they are used."""
    with reading(path), path.open("rb") as file:
        meta = _header(path, file)
    with reading(path), _parsing(path), safetensors.safe_open(path, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
    return _verified(path, kind, tensors, meta)


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Damaged(path, f"not a safetensors file of lth ({error})") from error


def _verified(
    path: Path, kind: str, tensors: dict[str, Tensor], meta: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _parsing(path):
        found = _content(tensors, {key: _bytes_of(tensor) for key, tensor in tensors.items()}, meta)
    if found != meta.get("content"):
        raise Damaged(path, "its content does not match its checksum")
    _check_kind(path, meta, kind)
    return tensors, meta


def read_about(path: Path, kind: str) -> dict[str, Any]:
    """The description in the header alone, tensors unread and unverified. Raises as `read_tensors`."""
    with reading(path), path.open("rb") as file:
        meta = _header(path, file)
    _check_kind(path, meta, kind)
    return meta


def refuse_newer(path: Path) -> None:
    """Raise NewerFormat for a file of a later format; whatever else is wrong with it is found when it is read."""
    with contextlib.suppress(Damaged, ReadFailed), reading(path), path.open("rb") as file:
        _header(path, file)


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The description, once the sizes in the header fit the file: nothing is allocated on its word."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _HEADER_LIMIT):
        raise Damaged(path, f"its header claims {length:,} bytes in a file of {size:,}")
    try:
        header = json.loads(file.read(length).decode())
        meta = json.loads(header.pop("__metadata__")[_ENTRY])
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Damaged(path, "its header is not one that lth wrote") from error
    if not isinstance(meta, dict):
        raise Damaged(path, "its header is not one that lth wrote")
    check_format(path, meta, max(FORMAT, _NEWEST.get(str(meta.get("kind")), FORMAT)))
    if 8 + length + end != size:
        raise Damaged(path, f"{size:,} bytes long, {8 + length + end:,} expected")
    return meta


def _check_kind(path: Path, meta: Mapping[str, Any], kind: str) -> None:
    version = meta.get("format")
    if type(version) is not int or version < 1 or meta.get("kind") != kind:
        raise Damaged(path, f"not a {kind} file of lth")


def content_digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) over names, dtypes, shapes, bytes and a description. Raises ValueError."""
    return _content(tensors, {key: _bytes_of(tensor) for key, tensor in tensors.items()}, about)


def _content(tensors: Mapping[str, Tensor], views: Mapping[str, memoryview], meta: Mapping[str, Any]) -> str:
    about = {key: value for key, value in meta.items() if key != "content"}
    sha = hashlib.sha256()
    layout = [[key, _dtypes()[tensors[key].dtype], list(tensors[key].shape)] for key in sorted(tensors)]
    # the layout is hashed before any byte, so no two layouts of the same bytes can collide
    sha.update(canonical([about, layout]).encode())
    for key in sorted(tensors):
        sha.update(views[key])
    return sha.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, without a copy where it lies so on the CPU."""
    import torch

    if tensor.dtype not in _dtypes() or tensor.layout != torch.strided:
        raise ValueError(f"a {tensor.dtype} tensor ({tensor.layout}) cannot be stored")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
