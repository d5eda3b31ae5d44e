"""What the tests of `lth analyze` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lth = Callable[..., Any]


def answer(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `lth analyze ARGUMENTS` says in a folder, as plain values."""
    done = lth_in(folder, "analyze", *arguments, "--json", "-q")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found
