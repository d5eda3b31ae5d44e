"""A person's own code is part of what was trained: after an edit nothing old is taken for new."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lth_cli.config import sources
from lth_cli.config.schema import Model
from lth_cli.store.runs import Run

MODEL = '''
import torch
from own_parts.layers import Wide


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, input_shape, classes, hidden=8):
        super().__init__()
        self.body = Wide(input_shape[0] * input_shape[1] * input_shape[2], hidden)
        self.head = torch.nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(torch.relu(self.body(x.flatten(1))))
'''
LAYERS = "import torch\n\n\nclass Wide(torch.nn.Linear):\n    pass\n"
SCORE = "def largest(weights, masks, *, seed):\n    return {name: weights[name].abs() for name in masks}\n"

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Put own modules where imports find them, as a new process would see them."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**modules: str) -> None:
        (tmp_path / "code" / "own_parts").mkdir(parents=True, exist_ok=True)
        for name, text in modules.items():
            (tmp_path / "code" / f"{name.replace('__', '/')}.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("own_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        sources.own_sources.cache_clear()
        sources._file.cache_clear()

    write(own_net=MODEL, own_parts__layers=LAYERS, own_score=SCORE)
    yield write
    write()


@pytest.fixture
def train(lth: Callable[..., Any]) -> Callable[..., Any]:
    settings = (
        "device=cpu",
        "threads=1",
        "dataset.subset.fraction=0.1",
        "training.length=6it",
        "--json",
        "-q",
    )
    return lambda *more: lth("train", "~model.hidden", "model._target_=own_net.Net", *settings, *more)


def steps(done: Any) -> tuple[int, int]:
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return found["steps_trained"], found["steps_reused"]


def interrupt(folder: Path, name: str) -> Run:
    run = Run.open(folder / "runs" / name)
    run.update(state="interrupted")
    return run


def test_edited_code_is_another_training(write: Write, train: Callable[..., Any]) -> None:
    """An edit in the module named, or in one that it imports; a comment, a docstring and layout are none."""
    assert steps(train("name=a")) == (6, 0)
    write(own_net=MODEL.replace('"""Two layers."""', '"""Of two layers."""  # said otherwise\n\n'))
    assert steps(train("name=b")) == (0, 6)
    write(own_net=MODEL.replace("torch.relu", "torch.tanh"))
    assert steps(train("name=c")) == (6, 0)
    write(own_net=MODEL, own_parts__layers=LAYERS.replace("    pass", "    scale = 2"))
    assert steps(train("name=d")) == (6, 0)
    write(own_parts__layers=LAYERS)
    assert steps(train("name=e")) == (0, 6)


def test_a_stated_version_stands_for_the_source(write: Write, train: Callable[..., Any]) -> None:
    assert steps(train("name=a", "+model._version_=1")) == (6, 0)
    write(own_net=MODEL.replace("import torch\n", "import torch\nUNUSED = 1\n"))
    assert steps(train("name=b", "+model._version_=1")) == (0, 6)
    assert steps(train("name=c", "+model._version_=2")) == (6, 0)


def test_runs_of_changed_code_are_refused_and_told_of(
    write: Write, train: Callable[..., Any], lth: Callable[..., Any], tmp_path: Path
) -> None:
    for seed, name in enumerate(("one", "two")):
        assert train(f"name={name}", f"seed={seed}").code == 0
    run = interrupt(tmp_path, "one")
    assert run.info["own_code"]["model"]["modules"]["own_net"]["text"] == MODEL
    assert "own code   own_net, own_parts.layers, unchanged" in lth("show", "one").out
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}

    write(own_net=MODEL.replace("torch.relu", "torch.tanh"))
    refused = train("name=one", "seed=0")
    assert refused.code == 2
    assert "model: module own_net has changed (-return self.head(torch.relu" in refused.err.replace(
        "        ", ""
    )
    assert "Give another name=" in refused.err
    asked = lth("analyze", "two", "one", "analysis=agreement", "--trust")
    assert asked.code == 2
    assert "the code of your own that two was trained with has changed" in asked.err
    assert "own_net has changed" in lth("show", "two").out
    verified = lth("verify", "two")
    assert (verified.code, "note: own code: model: module own_net has changed" in verified.out) == (0, True)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before

    write(own_net="# the former code\n" + MODEL)
    assert train("name=one", "seed=0").code == 0


def test_a_changed_score_is_refused_as_well(
    write: Write, lth: Callable[..., Any], small: tuple[str, ...], tmp_path: Path
) -> None:
    command = (
        "prune",
        *small,
        "training.length=3it",
        "pruning.rounds=1",
        "pruning.score=own_score.largest",
        "name=x",
    )
    assert lth(*command, "-q").code == 0
    interrupt(tmp_path, "x")
    write(own_score=SCORE.replace(".abs()", ""))
    refused = lth(*command, "-q")
    assert (refused.code, "pruning.score: module own_score has changed" in refused.err) == (2, True)


def test_what_is_installed_has_no_source_of_its_own() -> None:
    for target in ("torch.optim.SGD", "lth_cli.models.mlp.MLP", "json.dumps", "sys.exit", "nowhere.at.all"):
        assert sources.own_sources(target) == {}


def test_networks_of_one_training_do_not_agree(
    write: Write, train: Callable[..., Any], lth: Callable[..., Any]
) -> None:
    """Own code may draw random numbers, so `seeds.augment` counts; that it draws none shows in the weights."""
    for seed in (0, 1):
        assert train(f"name=s{seed}", f"seeds.augment={seed}", "training.shuffle=false").code == 0
    asked = lth("analyze", "s0", "s1", "analysis=agreement", "--trust")
    assert (asked.code, "s0:0@end and s1:0@end have the same weights" in asked.err) == (1, True)
    copies = lth("analyze", "s0", "analysis=instability", "analysis.points=3", "--trust")
    assert (copies.code, "copies 1 and 2 of s0:0 from step 0 ended in the same weights" in copies.err) == (
        1,
        True,
    )


def test_a_kept_teacher_of_changed_code_teaches_nobody(
    write: Write, train: Callable[..., Any], lth: Callable[..., Any], small: tuple[str, ...], tmp_path: Path
) -> None:
    assert train("name=teacher").code == 0
    taught = (
        "train",
        "device=cpu",
        "threads=1",
        "dataset.subset.fraction=0.1",
        "training.length=3it",
        "distillation=kd",
        "distillation.teachers=[teacher]",
        "distillation.trust=true",
        "name=student",
        "-q",
    )
    assert lth(*taught).code == 0
    interrupt(tmp_path, "student")
    write(own_net=MODEL.replace("torch.relu", "torch.tanh"))
    refused = lth(*taught)
    assert refused.code == 2
    assert "of teacher:0@6it, which teaches student, has changed: own_net" in refused.err


def test_what_git_says_of_own_code_is_kept_with_the_run(
    write: Write, train: Callable[..., Any], tmp_path: Path
) -> None:
    """The commit and what is not committed of these files, not of others; nothing outside git."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", "-C", str(tmp_path / "code"), *who, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert train("name=outside").code == 0
    assert "own_code_git" not in Run.open(tmp_path / "runs" / "outside").info
    git("init", "-q")
    git("add", "own_net.py", "own_score.py")
    git("commit", "-q", "-m", "first")
    write(own_net=MODEL.replace("torch.relu", "torch.tanh"), own_score=SCORE + "\n")
    assert train("name=inside").code == 0
    (noted,) = Run.open(tmp_path / "runs" / "inside").info["own_code_git"]
    assert (noted["repository"], noted["commit"]) == ("code", git("rev-parse", "HEAD"))
    assert noted["files"] == ["own_net.py", "own_parts/layers.py"]
    assert noted["untracked"] == ["own_parts/layers.py"]
    assert noted["diff"] == git("diff", "HEAD", "--", "own_net.py") + "\n"
    assert "+        return self.head(torch.tanh" in noted["diff"] and "own_score" not in noted["diff"]


def test_a_mistake_is_told_with_its_place(lth, write: Write) -> None:
    broken = "def largest(weights, masks, *, seed):\n    return {name: weights['nope'] for name in masks}\n"
    write(own_score=broken)
    done = lth(
        "prune", "pruning.score=own_score.largest", "training.length=2it", "pruning.rounds=1", "name=broken"
    )
    assert done.code == 2 and re.search(r"KeyError: 'nope' \(.*own_score\.py:2\)", done.err), done.err
    write(own_data="def data(place):\n    raise KeyError('gone')\n")
    done = lth("train", "dataset._target_=own_data.data")
    assert done.code == 1 and re.search(r"own_data\.py:2: KeyError: 'gone'", done.err), done.err
    assert "fault in lth" not in done.err
    write(own_net=MODEL.replace("x.flatten(1)", "x.flatten(1)[:, :9]"))
    done = lth("train", "~model.hidden", "model._target_=own_net.Net")
    assert done.code == 2 and re.search(r"does not fit .*\.py:\d+\)", done.err)


def test_code_that_an_argument_names_is_part_of_what_was_trained(write: Write) -> None:
    """As the network of model=condensed; a stated version takes its place there, too."""
    network = {"_target_": "own_net.Net"}
    model = {"_target_": "lth_cli.models.condensed.Condensed", "network": network}
    before = Model.model_validate(model).sources
    assert set(before) == {"own_net", "own_parts.layers"}
    write(own_net=MODEL.replace("hidden=8", "hidden=9"))
    after = Model.model_validate(model).sources
    assert after["own_net"] != before["own_net"]
    assert not Model.model_validate({**model, "network": {**network, "_version_": 1}}).sources
