"""The tutorial's example of one's own code, run as it stands there."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

from lth_cli.config import sources

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_the_example_of_ones_own_code_runs_as_it_is_printed(lth, tmp_path, monkeypatch) -> None:
    section = TUTORIAL.read_text().split("\n## Your own configs\n")[1].split("\n## ")[0]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    code = tmp_path / "mylab.py"
    ran, found = [], []
    for text, kind, block in re.findall(r"(.*?)```(\w*)\n(.*?)```", section, re.DOTALL):
        if kind == "yaml":
            path = tmp_path / re.findall(r"`(own/[\w/]+\.yaml)`", text)[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
        elif kind == "python":
            code.write_text(code.read_text() + block if code.exists() else block)
            for cached in (sources.own_sources, sources._file):
                cached.cache_clear()
            sys.modules.pop("mylab", None)
            importlib.invalidate_caches()
        for line in block.splitlines():
            if not line.startswith("$ lth prune"):
                continue
            done = lth(
                *shlex.split(line)[2:], "device=cpu", "threads=1", "training.length=2ep", "--json", "-q"
            )
            assert done.code == 0, f"{line}\n{done.err}"
            ran.append(line)
            found.append(tuple(row["test_loss"] for row in json.loads(done.out)["results"]))
    # The model alone; a score; one that asks for gradients; a schedule; a loss: each changes what is found.
    for part, line in zip(("small", "large_first", "sensitive", "triangles", "focal"), ran, strict=True):
        assert part in line
    assert all(len(losses) == 5 for losses in found)
    assert len(set(found)) == len(found), found
    sys.modules.pop("mylab", None)
