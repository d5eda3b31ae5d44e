"""A run as one archive that can be checked whole before any of it is used.

A tar file: `manifest.json` first (name of the run, size and SHA-256 of every file), then those files in its order;
among them a card, a page on the run for who has the archive alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lth_cli.config.errors import RequestError
from lth_cli.store.files import (
    JSON_LIMIT,
    Damaged,
    make_folder,
    parse_json,
    reading,
    remove_tree,
    sha256_file,
    sync_folder,
    temporary,
    write_sealed,
    writing,
)
from lth_cli.store.formats import check_format
from lth_cli.store.runs import LOGGERS, Run, RunExists, check_name
from lth_cli.store.states import load_state, read_header, save_state
from lth_cli.store.verify import verify_run

FORMAT = 1
_MANIFEST = "manifest.json"
CARD = "CARD.md"
LARGEST = 2**36
"""Bytes that an archive may unpack to where nobody says otherwise."""
_CHUNK = 2**20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+,-]*")


def pack(run: Run, target: Path, card: Callable[[Mapping[str, str]], str], *, optimizer: bool) -> int:
    """Write a finished run as one archive; the same run and card give the same bytes.

    Args:
        run: finished.
        target: where nothing is yet.
        card: makes the text of its card, given the SHA-256 of every file by path in the run.
        optimizer: whether states keep what the optimizer had, which training on from them needs.

    Returns:
        How many files it holds.

    Raises:
        RequestError: something is at the target, or the run is not finished, or damaged.
        WriteFailed, ReadFailed.
    """
    if target.exists() or target.is_symlink():
        raise RequestError(f"{target} exists already; name another with -o or delete it")
    if run.effective_state != "finished":
        raise RequestError(f"{run.name} is {run.effective_state}, not finished; go on with it first")
    faults = verify_run(run)
    if faults:
        raise RequestError(f"{run.name} is damaged: {faults[0].path}: {faults[0].message}; see lth verify")
    files = {
        path.relative_to(run.path).as_posix(): path for path in sorted(run.path.rglob("*")) if path.is_file()
    }
    files = {
        name: path
        for name, path in files.items()
        if _is_plain(name) and not name.startswith(f"{LOGGERS}/") and name != CARD
    }
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".lth-pack-", dir=target.parent) as folder:
        if not optimizer:
            files |= _without_optimizer(run, Path(folder))
        return _write(run, target, files, card)


def _without_optimizer(run: Run, folder: Path) -> dict[str, Path]:
    """States of a run without their optimizer, and the summaries that have the checksums of these, by path in the run.

    A state that had nothing of the kind stays the file that it is.
    """
    made: dict[str, Path] = {}
    for round_ in run.every_round():
        if not round_.finished:
            continue
        within, changed = round_.folder.relative_to(run.path), {}
        for path in round_.checkpoints().values():
            state = load_state(path)
            if not state.optimizer:
                continue
            slim = folder / within / "checkpoints" / path.name
            make_folder(slim.parent)
            save_state(
                slim, dataclasses.replace(state, optimizer={}, partial=True), read_header(path).trajectory
            )
            changed[slim.relative_to(folder / within).as_posix()] = slim
        if changed:
            summary = round_.summary
            files = {**summary["files"], **{name: sha256_file(path) for name, path in changed.items()}}
            told = folder / within / round_.summary_path.name
            write_sealed(told, {**summary, "files": files})
            made |= {(within / name).as_posix(): path for name, path in changed.items()}
            made[(within / told.name).as_posix()] = told
    return made


def _write(
    run: Run, target: Path, files: Mapping[str, Path], card: Callable[[Mapping[str, str]], str]
) -> int:
    with reading(run.path):
        listed: dict[str, dict[str, Any]] = {
            name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()
        }
    page = card({name: about["sha256"] for name, about in listed.items()}).encode()
    listed[CARD] = {"size": len(page), "sha256": hashlib.sha256(page).hexdigest()}
    manifest = {"format": FORMAT, "name": run.name, "id": run.info["id"], "files": listed}
    content = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    partial = temporary(target)
    try:
        with writing(target):
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
                archive.addfile(_member(_MANIFEST, len(content)), io.BytesIO(content))
                for name in sorted(listed):
                    with files[name].open("rb") if name in files else io.BytesIO(page) as file:
                        archive.addfile(_member(name, listed[name]["size"]), file)
            partial.rename(target)
            sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return len(listed)


def unpack(source: Path, runs_dir: Path, largest: int = LARGEST) -> Run:
    """Make a run of an archive; it appears whole, every byte checked, or not at all.

    Args:
        source: the archive.
        runs_dir: folder of runs.
        largest: bytes that its files may have together.

    Raises:
        Damaged: the archive is none, or holds anything but what its list says.
        RunExists: a run of its name is there.
        RequestError: no such file, or it is larger than `largest` or the disk has room for.
        ReadFailed, WriteFailed, NewerFormat.
    """
    if not source.is_file():
        raise RequestError(f"there is no file {source}")
    partial: Path | None = None
    try:
        with reading(source), tarfile.open(source, "r:") as archive:
            name, listed = _manifest(source, archive)
            path = runs_dir / name
            if path.exists():
                raise RunExists(path)
            _check_size(source, sum(about["size"] for about in listed.values()), largest, runs_dir)
            make_folder(runs_dir)
            partial = temporary(path)
            for wanted in sorted(listed):
                _extract(source, archive, wanted, listed[wanted], partial)
            if archive.next() is not None:
                raise Damaged(source, "it holds more than its list says")
        faults = verify_run(Run.open(partial))
        if faults:
            raise Damaged(source, f"{faults[0].path.relative_to(partial)}: {faults[0].message}")
        with writing(path):
            (partial / "figures").mkdir(exist_ok=True)
            partial.rename(path)
            sync_folder(runs_dir)
        return Run.open(path)
    except (tarfile.TarError, EOFError) as error:
        raise Damaged(source, f"not an archive of lth pack ({error})") from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                remove_tree(partial)


def _check_size(source: Path, total: int, largest: int, runs_dir: Path) -> None:
    """Refuse an archive for its size before anything of it is written."""
    if total > source.stat().st_size:  # nothing in it is compressed
        raise Damaged(source, f"its list says {total:,} bytes, more than the archive has")
    if total > largest:
        raise RequestError(
            f"{source} unpacks to {total:,} bytes, more than the {largest:,} allowed; --most GIGABYTES allows more"
        )
    there = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if total > free:
        raise RequestError(f"{source} unpacks to {total:,} bytes; the disk of {runs_dir} has {free:,} free")


def _is_plain(name: str) -> bool:
    """Whether it is a relative path of ordinary names: locks and other hidden files are not."""
    return all(_PART.fullmatch(part) for part in name.split("/"))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _manifest(source: Path, archive: tarfile.TarFile) -> tuple[str, dict[str, dict[str, Any]]]:
    first = archive.next()
    file = archive.extractfile(first) if first is not None and first.isreg() else None
    if first is None or file is None or first.name != _MANIFEST or first.size > JSON_LIMIT:
        raise Damaged(source, f"it does not begin with {_MANIFEST}")
    content = parse_json(source, file.read())
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise Damaged(source, "its list is none")
    check_format(source, content, newest=FORMAT)
    for name, about in content["files"].items():
        size = about.get("size") if isinstance(about, dict) else None
        if not _is_plain(name) or type(size) is not int or size < 0:
            raise Damaged(source, f"{name!r} is no file that a run has")
    return check_name(str(content.get("name"))), content["files"]


def _extract(source: Path, archive: tarfile.TarFile, name: str, about: dict[str, Any], folder: Path) -> None:
    member = archive.next()
    if member is None or not member.isreg() or member.issparse() or member.name != name:
        raise Damaged(source, f"{member.name if member else 'its end'!r} stands where {name!r} should")
    file = archive.extractfile(member)
    if file is None or member.size != about["size"]:
        raise Damaged(source, f"{name} has {member.size} bytes, its list says {about['size']}")
    target, seen = folder / PurePosixPath(name), hashlib.sha256()
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            while chunk := file.read(_CHUNK):
                seen.update(chunk)
                out.write(chunk)
    if seen.hexdigest() != about.get("sha256"):
        raise Damaged(source, f"{name} is not what was packed")
