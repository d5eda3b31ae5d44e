"""What is shipped needs no trust."""

from __future__ import annotations

import importlib
import shutil
import sys

import pytest
import yaml

from lth_cli.config import sources
from lth_cli.config.compose import packaged_configs
from lth_cli.experiments.trust import _foreign

OPTIONS = [
    path
    for group in ("dataset", "model", "update", "optimizer", "schedule")
    for path in packaged_configs().glob(f"{group}/*.yaml")
]


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_is_trusted(path):
    assert not list(_foreign({path.parent.name: yaml.safe_load(path.read_text())}))


MODEL = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, input_shape, classes, hidden=8):
        inputs = input_shape[0] * input_shape[1] * input_shape[2]
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, classes))
"""
ASKED = "names code outside lth: model._target_=own_trusted.Net"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A model of the user's own, whose file can be written anew as a new process would see it."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "code").mkdir()

    def write(text):
        (tmp_path / "code" / "own_trusted.py").write_text(text)
        sys.modules.pop("own_trusted", None)
        importlib.invalidate_caches()
        sources.own_sources.cache_clear()
        sources._file.cache_clear()

    write(MODEL)
    yield write
    write("")


def test_only_what_this_user_ran_here_is_not_asked_about(own, lth, small, tmp_path, monkeypatch) -> None:
    typed = [word for word in small if not word.startswith("model.")]
    asked = (
        "prune",
        *typed,
        "~model.hidden",
        "model._target_=own_trusted.Net",
        "pruning.rounds=1",
        "name=mine",
    )
    done = lth(*asked)
    assert done.code == 0, done.err
    assert lth("rewind", "mine", "name=again").code == 0
    assert lth("analyze", "again", "analysis=masks").code == 0

    # The same folder, with other arguments for the same code: a run cannot vouch for itself.
    foreign = shutil.copytree(tmp_path / "runs" / "mine", tmp_path / "elsewhere")
    config = foreign / "config.yaml"
    changed = config.read_text().replace(
        "_target_: own_trusted.Net\n", "_target_: own_trusted.Net\n  hidden: 9\n"
    )
    assert changed != config.read_text()
    config.write_text(changed)
    assert ASKED in lth("rewind", "elsewhere", "name=no").err

    # Another file where the code was; another user; a memory that others can write.
    own(MODEL.replace("hidden=8", "hidden=7"))
    assert ASKED in lth("rewind", "mine", "name=no").err
    own(MODEL)
    memory = tmp_path / "state" / "lth" / "own_code"
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.chmod(0o666)
    assert ASKED in lth("rewind", "mine", "name=no").err
    memory.unlink()
    assert ASKED in lth("rewind", "mine", "name=no").err
    # Said once, it is known.
    assert lth("rewind", "mine", "name=yes", "--trust").code == 0
    assert lth("rewind", "mine", "name=and", "rewind.to=0it").code == 0
