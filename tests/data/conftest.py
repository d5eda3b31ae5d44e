"""Places and image folders in a temporary folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lth_cli.data.source import Place

sys.path.insert(0, str(Path(__file__).parent))  # for data_helpers, which configs name as a _target_


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(root=None, cache=tmp_path / "cache", download=False, workers=0)


@pytest.fixture
def write_tree(tmp_path: Path) -> Callable[..., Path]:
    def write(files: dict[str, bytes], name: str = "images") -> Path:
        for path, content in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return tmp_path / name

    return write
