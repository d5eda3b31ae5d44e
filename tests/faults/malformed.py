"""Requests that no run can be made of, drawn by hypothesis: each must exit 2 with a message and leave nothing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st


@dataclass(frozen=True)
class Request:
    """A command line and the config files it names.

    Attributes:
        arguments: after `lth`.
        files: content by path in the folder that `--config-dir` names.
        surely: whether it is malformed for sure; random text may mean something by chance.
    """

    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    surely: bool = True


COMMANDS = st.sampled_from(["train", "prune"])
_WORDS = st.text("abcdefgh", min_size=4, max_size=12)
# What a shell may hand over: no NUL and no lone surrogate.
_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)

_WRONG: dict[str, st.SearchStrategy[str]] = {}
_NO_NUMBER = st.sampled_from(
    [
        "",
        "abc",
        "nan",
        "inf",
        "-inf",
        "[1]",
        "{a:1}",
        "true",
        "1e",
        "--1",
        "'5'",
        "1_",
        "0x",
        "[]",
        "1;2",
        "$x",
    ]
)
_NEGATIVE = st.integers(max_value=-1).map(str)
for _key in ("seed", "seeds.init", "seeds.order", "seeds.split", "data.workers"):
    _WRONG[_key] = _NO_NUMBER | _NEGATIVE | st.floats(0.01, 0.99).map(str)
for _key in ("training.batch_size", "evaluation.batch_size", "threads"):
    _WRONG[_key] = _NO_NUMBER | _NEGATIVE | st.just("0") | st.floats(0.01, 0.99).map(str)
for _key in ("optimizer.lr", "training.gradient_clip"):
    _WRONG[_key] = _NO_NUMBER | _NEGATIVE | st.just("0")
for _key in ("dataset.label_noise", "dataset.subset.fraction", "training.label_smoothing"):
    _WRONG[_key] = _NO_NUMBER | _NEGATIVE | st.floats(1.001, 1e9).map(str)
for _key in ("training.shuffle", "training.drop_last", "evaluation.train", "data.download"):
    _WRONG[_key] = st.sampled_from(["", "2", "maybe", "[true]", "null", "1.0"]) | _WORDS
for _key in ("device", "precision.dtype", "dataset", "model", "optimizer", "schedule", "experiment"):
    _WRONG[_key] = _WORDS.map("no_".__add__) | st.sampled_from(["1", "[cpu]", "{a:b}"])

_STEPS = st.sampled_from(["training.length", "evaluation.every", "checkpoint.every"])
_NO_STEPS = _TEXT.filter(
    lambda text: re.fullmatch(r"(\d+ep)?(\d+it)?|\d+(s|min|h)|0", text.strip().strip("'\"")) is None
) | st.sampled_from(
    ["-1it", "1.5ep", "0it", "0ep0it", "5", "it", "1it1ep", "99999999999999ep", "1e3it", "½ep", "٣it"]
)
_NO_RANGE = (
    st.sampled_from(
        [
            "-1",
            "5-3",
            "1-",
            "-",
            ",",
            "1,,2",
            "all,1",
            "first",
            "1.5",
            "99999",
            "1-99999",
            "0-5,9-8",
            "[1]",
            "[]",
            "{a:1}",
        ]
    )
    | _WORDS
)
_NO_NAME = (
    st.sampled_from(["..", ".", "../up", "/abs", "-x", ".hidden", "a/b", "a b", "ä", "a" * 121, "''", "a\\b", "[x]"])
    | st.tuples(_WORDS, st.sampled_from("/ :*?<>|\n\t%#@!"), _WORDS).map("".join)
)  # fmt: skip


def quoted(text: str) -> str:
    """A value that Hydra's grammar takes for one string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@st.composite
def wrong_values(draw: st.DrawFn) -> Request:
    """A known key with a value it cannot have, among others that are fine."""
    key = draw(st.sampled_from(sorted(_WRONG)))
    others = draw(st.lists(st.sampled_from(["seed=3", "training.length=1ep", "rewind.to=0"]), max_size=2))
    command = "prune" if "rewind.to=0" in others else draw(COMMANDS)
    return Request((command, *others, f"{key}={draw(_WRONG[key])}"))


@st.composite
def unknown_keys(draw: st.DrawFn) -> Request:
    """A key that is nowhere, set or added."""
    section = draw(st.sampled_from(["", "training.", "model.", "pruning.", "rewind.", "data.", "hydra."]))
    sign = draw(st.sampled_from(["", "+", "++", "~"]))
    return Request(("prune", f"{sign}{section}{draw(_WORDS)}_x=1"))


@st.composite
def garbage(draw: st.DrawFn) -> Request:
    """Any text where an override belongs."""
    text = draw(_TEXT | st.tuples(_WORDS, _TEXT).map("=".join)).lstrip("-")
    return Request((draw(COMMANDS), text or "=", "training.length=1it"), surely="=" not in text)


@st.composite
def wrong_steps(draw: st.DrawFn) -> Request:
    """A step string outside the grammar, or a point outside the training."""
    if draw(st.booleans()):
        return Request((draw(COMMANDS), f"{draw(_STEPS)}={quoted(draw(_NO_STEPS))}"))
    late = draw(st.integers(40, 10**9))
    key = draw(st.sampled_from(["rewind.to", "pruning.at"]))
    return Request(("prune", f"{key}={late}ep", "training.length=2ep"))


@st.composite
def wrong_ranges(draw: st.DrawFn) -> Request:
    """A range of rounds that is none, or that goes beyond the last one."""
    return Request(
        ("prune", "controls.kinds=[reinit]", "pruning.rounds=3", f"controls.rounds={draw(_NO_RANGE)}")
    )


@st.composite
def wrong_names(draw: st.DrawFn) -> Request:
    """A name no run can have, or one that no run has."""
    name = draw(_NO_NAME)
    if draw(st.booleans()):
        return Request((draw(COMMANDS), f"name={quoted(name)}"))
    return Request(
        (draw(st.sampled_from(["show", "verify", "rewind"])), name), surely=not name.startswith("-")
    )


_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
_NO_YAML = st.binary(max_size=60) | st.sampled_from(
    [
        b"", b"\xff\xfe", b"[", b"a: [", b"\t- x", b"- a\n- b", b"just text", b"5", b"null",
        b"!!python/object:os.system {}", b"a: &a [*a]",
        b"a: ${b}\nb: ${a}", b"hidden: ${nowhere}", b"hidden: ${oc.env:NO_SUCH_VARIABLE}", b"hidden: ???",
        b"defaults:\n  - nowhere", b"defaults: 5", b"_target_: 5", b"_target_: no.such.module.Model",
        b"_target_: lth_cli.models.mlp.Nothing", b"_target_: lth_cli.models.mlp.MLP\nhidden: many", b"? [a]\n: b",
        b"a: 1\na: 2", b"_target_: lth_cli.models.mlp.MLP\nhidden: [-5]", b"[" * 3000, b"a: " + b"{b: " * 1500, _BOMB,
        b"_target_: lth_cli.models.mlp.MLP\nhidden: .nan", b"%YAML 9.9\n---\na: 1", b"a: !!binary x", b"2020-13-45: 1",
    ]
)  # fmt: skip


@st.composite
def wrong_files(draw: st.DrawFn) -> Request:
    """A person's own config file that is none."""
    content = draw(_NO_YAML)
    group = draw(st.sampled_from(["model", "optimizer", "dataset", "schedule", "pruning"]))
    return Request(
        ("prune", "--config-dir", "own", f"{group}=bad"), {f"{group}/bad.yaml": content}, surely=False
    )


KINDS = {
    "values": wrong_values(),
    "keys": unknown_keys(),
    "garbage": garbage(),
    "steps": wrong_steps(),
    "ranges": wrong_ranges(),
    "names": wrong_names(),
    "files": wrong_files(),
}


@dataclass(frozen=True)
class Answer:
    """What a request left behind: exit code, what was said, files it left. `accepted` when a run would have begun."""

    code: int
    said: str
    left: list[str]
    accepted: bool


class _Accepted(Exception):
    """The request is fine: a run would be made now."""


def ask(request: Request) -> Answer:
    """Make a request in this process, in an empty folder; a run that would begin is not begun."""
    import lth_cli.cli.point
    from lth_cli.cli.main import main

    accepted = mock.Mock(side_effect=_Accepted)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for path, content in request.files.items():
            file = Path(folder, "own", path)
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
        there = set(_files(folder))
        said = io.StringIO()
        stack.callback(os.chdir, before)
        os.chdir(folder)
        stack.enter_context(mock.patch.object(sys, "argv", ["lth", *request.arguments]))
        stack.enter_context(mock.patch.object(lth_cli.cli.point, "open_session", accepted))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Answer(code, said.getvalue(), sorted(set(_files(folder)) - there), accepted.called)


def _files(folder: str) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def problem(request: Request, answer: Answer) -> str | None:
    """What is not as promised, if anything."""
    if answer.left:
        return f"left {answer.left}"
    if answer.accepted:
        return "accepted" if request.surely else None
    if answer.code == 0 and not request.surely:  # random text may ask for something that is there
        return None
    if answer.code != 2:
        return f"exit {answer.code}: {answer.said[-400:]}"
    if not answer.said.strip() or "Traceback" in answer.said or "fault in lth" in answer.said:
        return f"no clear message: {answer.said[-400:]}"
    return None
