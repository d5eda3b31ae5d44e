"""Data sets in Arrow and Parquet files, as the library datasets saves them and as the hub lays them out; shards.

Their columns are read by pyarrow, and nothing in them is executed: no loading script, no pickle, no extension type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lth_cli.config import extras
from lth_cli.config.errors import ConfigError

ENDINGS = (".parquet", ".arrow")
_SHARD = re.compile(r"(?P<name>.+)[-.]\d{5}-of-(?P<count>\d{5})")
_LINES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")


def shards(path: str, key: str, split: str) -> list[str]:
    """The files that a path stands for: itself, or those of one split of a folder, in order.

    Args:
        path: of a file or a folder.
        key: config path for errors.
        split: the one taken of a folder that has several.

    Raises:
        ConfigError: at `key`; a folder without such files, without the split, or with some of them missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [path]
    found = _splits(folder, key)
    if len(found) > 1 and split not in found:
        raise ConfigError((key, f"{path!r} has no split {split!r}; it has {', '.join(found)}"))
    return [str(file) for file in (found[split] if len(found) > 1 else next(iter(found.values())))]


def several(path: str, key: str) -> bool:
    """Whether a path is a folder of more than one split. Raises ConfigError as `shards`."""
    folder = Path(path).expanduser()
    return folder.is_dir() and len(_splits(folder, key)) > 1


def columns(found: bytes, path: str, key: str, names: Sequence[str | int]) -> list[list[Any]]:
    """Columns of a file as Python values; a class is its name where the file has the names.

    Args:
        found: what the file holds.
        path: its name, for messages and for what it is.
        key: config path for errors.
        names: of the columns.

    Raises:
        ConfigError: at `key`; it cannot be read, or has no such column.
        RequestError: pyarrow is not installed.
    """
    table = _table(found, path, key)
    taken = []
    for name in names:
        if name not in table.column_names:
            there = ", ".join(table.column_names) or "none"
            raise ConfigError((key, f"{path!r} has no column {name!r}; it has {there}"))
        values, named = table.column(name).to_pylist(), _classes(table.schema, str(name))
        taken.append([named[v] if v in range(len(named)) else v for v in values] if named else values)
    return taken


def classes(found: bytes, path: str, key: str, column: str | int) -> tuple[str, ...]:
    """The names of the classes of a column in order; none where the file does not say. Raises as `columns`."""
    return _classes(_table(found, path, key).schema, str(column))


def _table(found: bytes, path: str, key: str) -> Any:
    library = extras.pyarrow(f"{path!r}")
    try:
        reader = library.BufferReader(found)
        if path.lower().endswith(".parquet"):
            return library.parquet.read_table(reader)
        if found.startswith(b"ARROW1"):  # the format of files; datasets writes that of streams
            return library.ipc.open_file(reader).read_all()
        return library.ipc.open_stream(reader).read_all()
    except (library.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError((key, f"{path!r} cannot be read: {first}")) from error


def _classes(schema: Any, column: str) -> tuple[str, ...]:
    """What the library datasets notes of a column beside it: the names of its classes."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = noted["info"]["features"][column]
    except (ValueError, KeyError, TypeError):
        return ()
    named = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, named)) if isinstance(named, list) else ()


def _splits(folder: Path, key: str) -> dict[str, list[Path]]:
    """The files of a folder by split, in order. Raises ConfigError."""
    if (folder / "dataset_dict.json").is_file():
        names = _noted(folder / "dataset_dict.json", key).get("splits", [])
        return {str(name): _saved(folder / str(name), key) for name in names}
    if (folder / "state.json").is_file():
        return {"": _saved(folder, key)}
    for place in (folder, folder / "data"):
        files = sorted(file for ending in ENDINGS for file in place.glob(f"*{ending}"))
        if files:
            return _by_name(files, key)
    # As C4 is published: c4-train.00000-of-01024.json.gz.
    lines = [file for file in sorted(folder.iterdir()) if file.name.endswith(_LINES)]
    if parts := [file for file in lines if _SHARD.fullmatch(_stem(file))]:
        return _by_name(parts, key)
    # As the hub converts what has another format: SPLIT/0000.parquet.
    converted = {
        place.name: files
        for place in sorted(folder.iterdir())
        if (files := sorted(file for file in place.glob("*.parquet") if file.stem.isdigit()))
    }
    if converted:
        return converted
    inner = [place.name for place in sorted(folder.iterdir()) if place.is_dir()]
    told = f"; name one of its folders: {', '.join(inner[:8])}" if inner else ""
    raise ConfigError(
        (
            key,
            f"{str(folder)!r} has no *.parquet, *.arrow, shards of JSON lines, or what datasets saves{told}",
        )
    )


def _saved(folder: Path, key: str) -> list[Path]:
    """The files of what `Dataset.save_to_disk` wrote. Raises ConfigError."""
    state = _noted(folder / "state.json", key)
    try:
        files = [folder / Path(one["filename"]).name for one in state["_data_files"]]
    except (KeyError, TypeError):
        files = []
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        told = f"{missing[0]} is missing" if missing else "its state.json names no files"
        raise ConfigError((key, f"{str(folder)!r} is not what datasets saved: {told}"))
    return files


def _noted(path: Path, key: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError((key, f"{str(path)!r} cannot be read: {error}")) from error
    if not isinstance(found, dict):
        raise ConfigError((key, f"{str(path)!r} is no JSON object"))
    return found


def _stem(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).stem


def _by_name(files: Sequence[Path], key: str) -> dict[str, list[Path]]:
    """Files by what their names say before `-00000-of-00001`. Raises ConfigError: of some splits not all are there."""
    found: dict[str, list[Path]] = {}
    counts: dict[str, int] = {}
    for file in files:
        shard = _SHARD.fullmatch(_stem(file))
        name = (shard["name"] if shard else file.stem).rpartition("-")[2]
        found.setdefault(name, []).append(file)
        counts[name] = int(shard["count"]) if shard else len(found[name])
    for name, count in counts.items():
        if len(found[name]) != count:
            folder = str(files[0].parent)
            raise ConfigError((key, f"{folder!r} has {len(found[name])} of the {count} files of {name!r}"))
    return found
