"""The section `distillation`: its defaults, what it refuses, and that teachers are never ignored."""

import threading

import pytest

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.session import SessionObserver, Task, open_session

KD = ("distillation=kd", "distillation.teachers=[run:0]")


def test_defaults_are_those_of_the_reference_implementation():
    kd = load("train", KD).config.distillation
    assert (kd.loss, kd.temperature, kd.weight, kd.task_weight) == ("kl", 4.0, 0.9, 0.1)
    assert (kd.start, kd.end, kd.every, kd.sample, kd.cache, kd.precision) == (
        0.0,
        1.0,
        1,
        None,
        False,
        "same",
    )
    assert load("train", []).config.distillation.teachers == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distillation.teachers=[a,a]", "'a' stands there twice"),
        ("distillation.teachers=[':3']", "names no state; write RUN:ROUND@STEP"),
        ("distillation.teachers=['a@soon']", "write steps as 500it"),
        ("distillation.teachers=['sweep:']", "names none; write sweep:NAME"),
        ("distillation.loss=js", "cross_entropy"),
        ("distillation.temperature=0.0", "greater than 0"),
        ("distillation.weight=-0.1", "greater than or equal to 0"),
        ("distillation.end=1.5", "less than or equal to 1"),
        ("distillation.end=0.0", "leaves nothing before distillation.end=0.0"),
        ("distillation.every=0", "greater than or equal to 1"),
        ("+model@distillation.model=mlp", "no teacher is one"),
        ("distillation.sample=0", "greater than or equal to 1"),
    ],
)
def test_what_is_refused(override, message):
    overrides = [text for text in KD if not override.startswith(text.partition("=")[0] + "=")]
    with pytest.raises(ConfigError, match=message):
        load("train", [*overrides, override])


def test_kd_without_a_teacher_needs_one():
    with pytest.raises(ConfigError, match=r"distillation\.teachers: needs a value"):
        load("train", ["distillation=kd"])


@pytest.mark.parametrize(
    "name", ["latest", "best", "dense", "previous", "sweep:s/best", "a/w.safetensors", "imp:random/3@2ep"]
)
def test_names_of_teachers(name):
    assert load(
        "train", ["distillation=kd", f"distillation.teachers=['{name}']"]
    ).config.distillation.teachers == [name]


def test_teachers_are_never_ignored_in_silence(tmp_path):
    """A plan that nobody found the teachers of is not trained."""
    config = load("train", [*KD, f"runs_dir={tmp_path}"]).config
    task = Task("train", make_plan(config), lambda session: None, 1)
    with pytest.raises(AssertionError), open_session(task, "run", SessionObserver(), threading.Event()):
        pass
    assert not (tmp_path / "run").exists()
