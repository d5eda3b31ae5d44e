"""Runs that release 0.1.0 left behind: a later release opens, verifies, goes on with and reuses them."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest


@pytest.mark.usefixtures("runs")
def test_they_open_and_are_whole(lth):
    listed = json.loads(lth("ls", "--json").out)
    assert {Path(run["path"]).name: run["state"] for run in listed} == {
        **dict.fromkeys(("ticket", "student", "seeds-seed_0", "seeds-seed_1"), "finished"),
        "halfway": "interrupted",
    }
    shown = lth("show", "ticket")
    assert shown.code == 0 and "reinit" in shown.out
    assert lth("ls", "--sweep", "seeds").code == 0
    verified = lth("verify")
    assert verified.code == 0 and verified.out.count("no faults") == 6, verified.out


@pytest.mark.parametrize("name,total", [("ticket", 42), ("student", 6)])
def test_nothing_is_trained_again(lth, typed, steps, name, total):
    """Also with answers of teachers that are kept on disk, and for the random control."""
    again = lth(*typed(name), "name=again")
    assert again.code == 0, again.err
    assert steps("again") == (0, total)
    assert lth("verify", "again").code == 0


def test_an_interrupted_training_goes_on(runs, lth, typed, steps):
    went_on = lth(*typed("halfway"), "name=halfway", "--quiet")
    assert went_on.code == 0, went_on.err
    assert steps("halfway") == (10, 10)  # 10 by `ticket`, 3 by the older release, the rest now
    (states,) = {path.parent for path in (runs / ".store").rglob("step_00000020.safetensors")}
    spans = [json.loads(line) for line in (states / "segments.jsonl").read_text().splitlines()]
    assert (spans[-1]["start"], spans[-1]["end"]) == (15, 20) and spans[-2]["start"] == 13
    assert lth("verify").code == 0


def test_masks_are_rewound(lth, steps):
    """To the step that is stored, nothing is trained; to another, the dense training is not either."""
    there = lth("rewind", "ticket", "name=there", "rewind.to=2it", "rounds=1,2")
    assert there.code == 0, there.err
    assert steps("there") == (0, 16)
    first = lth("rewind", "ticket", "name=first", "rewind.to=0it", "rounds=2")
    assert first.code == 0, first.err
    assert steps("first") == (10, 0)
    assert lth("verify").code == 0


@pytest.mark.usefixtures("runs")
def test_an_answer_is_found(lth):
    states = "analysis.states=[0@end,1@end,2@end]"
    answered = lth("analyze", "ticket", "analysis=connectivity", states, "analysis.points=3")
    assert answered.code == 0 and "is answered already" in answered.err, answered.err


@pytest.mark.parametrize("raised,found", [("examples", True), ("connectivity", False)])
def test_a_version_is_of_one_analysis(runs, lth, monkeypatch, raised, found):
    """What another analysis computes does not make an answer old."""
    study = importlib.import_module(f"lth_cli.analyses.{raised}.study")
    prepare = study.prepare
    newer = lambda request, asked: dataclasses.replace(prepare(request, asked), version=2)  # noqa: E731
    monkeypatch.setattr(study, "prepare", newer)
    states = "analysis.states=[0@end,1@end,2@end]"
    answered = lth("analyze", "ticket", "analysis=connectivity", states, "analysis.points=3", "--quiet")
    assert answered.code == 0 and ("is answered already" in answered.err) == found
    assert len(list((runs / "ticket/analysis").iterdir())) == (1 if found else 2)
