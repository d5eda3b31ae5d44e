"""Tags and a note that a person gives a run: `tags.json` in its folder, which no training reads or writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lth_cli.config.errors import RequestError
from lth_cli.store.files import Damaged, read_sealed, write_sealed
from lth_cli.store.locks import Lock

FILE = "tags.json"
FORMAT = 1
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Tags:
    """What a person has written on a run.

    Attributes:
        tags: in alphabetical order, each once.
        note: a line of text; empty where there is none.
    """

    tags: tuple[str, ...] = ()
    note: str = ""


def read_tags(folder: Path) -> Tags:
    """The tags of the run in a folder; none where nobody gave it any. Raises Damaged, ReadFailed, NewerFormat."""
    path = folder / FILE
    if not path.exists():
        return Tags()
    content = read_sealed(path, FORMAT)
    tags, note = content.get("tags"), content.get("note")
    if not isinstance(tags, list) or not isinstance(note, str):
        raise Damaged(path, "it has no tags and note")
    return Tags(tuple(map(str, tags)), note)


def change_tags(
    folder: Path, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None
) -> Tags:
    """Give and take tags of the run in a folder, whether or not it is at work; of two at once, both count.

    Args:
        folder: of the run.
        add: tags it has from now on.
        remove: tags it has no more.
        note: replaces its note, where empty by none; None leaves it.

    Raises:
        RequestError: it has no such tag to remove.
        WriteFailed, ReadFailed, Damaged.
    """
    with Lock(folder / ".tags-lock", f"the tags of {folder.name}").acquire(wait=True):
        before = read_tags(folder)
        gone = [tag for tag in remove if tag not in before.tags]
        if gone:
            there = ", ".join(before.tags) or "none"
            raise RequestError(f"{folder.name} has no tag {gone[0]!r}; it has {there}")
        tags = tuple(sorted({*before.tags, *add} - set(remove)))
        after = Tags(tags, before.note if note is None else note)
        if after != before:
            content = {"format": FORMAT, "tags": list(after.tags), "note": after.note}
            write_sealed(folder / FILE, content)
    return after


def check_tag(tag: str) -> str:
    """The tag itself, if it can be one. Raises RequestError."""
    if _TAG.fullmatch(tag) is None:
        raise RequestError(
            f"{tag!r} cannot be a tag: up to 64 letters, digits and . _ + -, not starting with a sign"
        )
    return tag


def check_note(note: str) -> str:
    """The note itself, if it can be one. Raises RequestError."""
    if len(note) > _LONGEST_NOTE or not note.replace("\t", " ").isprintable():
        raise RequestError(f"a note is one line of at most {_LONGEST_NOTE:,} characters")
    return note
