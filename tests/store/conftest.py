import csv
import json
import shutil
from pathlib import Path

import pytest

RELEASE = Path(__file__).parents[1] / "fixtures" / "release_0_1_0" / "runs"


@pytest.fixture
def runs(tmp_path):
    """A copy of the runs that release 0.1.0 left behind."""
    return Path(shutil.copytree(RELEASE, tmp_path / "runs"))


@pytest.fixture
def typed(runs):
    """What was typed for one of them, without the name."""

    def words(name):
        command = json.loads((RELEASE / name / "run.json").read_text())["command"]
        return [word for word in command[1:] if not word.startswith("name=")]

    return words


@pytest.fixture
def steps(runs):
    """Steps trained and reused by all rounds of a run, controls included."""

    def count(name):
        rows = [row for table in (runs / name).rglob("results.csv") for row in csv.DictReader(table.open())]
        return tuple(sum(int(row[f"steps_{what}"]) for row in rows) for what in ("trained", "reused"))

    return count
