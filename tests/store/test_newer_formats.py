"""An older release meeting files of a newer one says so and touches nothing; a newer one reads older files."""

import json
import shutil

import pytest
import torch

from lth_cli.data import image_cache
from lth_cli.data.source import Arrays
from lth_cli.store import analyses, files, lines, rounds, sweeps, tensors
from lth_cli.store import runs as runs_module
from lth_cli.store.files import read_json, write_json, write_sealed
from lth_cli.store.formats import NewerFormat

ANALYZE = ("analyze", "ticket", "analysis=connectivity", "analysis.states=[0@end,1@end,2@end]")
DENSE, ANSWERS = "742de55d", "4312091d"
# What a newer release wrote, and the words that make this one meet it.
FILES = {
    f".store/{DENSE}*/step_00000010.safetensors": "ticket",
    f".store/{DENSE}*/resume.safetensors": "halfway",
    f".store/{DENSE}*/trajectory.json": "halfway",
    f".store/{DENSE}*/metrics.jsonl": "halfway",
    f".store/{DENSE}*/segments.jsonl": "halfway",
    f".store/{ANSWERS}*/answers.safetensors": "student optimizer.lr=0.05",
    "halfway/.uses": "halfway name=halfway",
    "halfway/run.json": "halfway name=halfway",
    "ticket/round_01/mask.safetensors": ("rewind", "ticket", "name=again"),
    "ticket/round_01/summary.json": ("rewind", "ticket", "name=again"),
    "ticket/round_00/metrics.jsonl": None,  # nobody reads it when it need not be written
    "ticket/analysis/*/result.json": (*ANALYZE, "analysis.points=3"),
    ".sweeps/seeds/sweep.json": "seeds-seed_0 name=seeds",
}


def newest(path):
    """The highest number of a format that this release reads; of states that is of those with masks or memory."""
    is_state = path.suffix == ".safetensors" and path.stem.startswith(("step_", "resume"))
    return tensors.FORMAT_PARTIAL if is_state else 1


def make_newer(path):
    """Give a file the number of a format to come, with checksums that are right."""
    number = newest(path) + 1
    if path.suffix == ".safetensors":
        with pytest.MonkeyPatch.context() as patch:
            meta = tensors._header(path, path.open("rb"))
            held, _ = tensors.read_tensors(path, meta["kind"])
            patch.setattr(tensors, "FORMAT", number)
            about = {key: value for key, value in meta.items() if key not in ("content", "format", "kind")}
            tensors.write_tensors(path, meta["kind"], held, about)
    elif path.suffix == ".jsonl":
        last = json.loads(path.read_text().splitlines()[-1])
        lines.append_lines(path, [{**last, "format": number}])
    elif path.name == ".uses":
        write_json(path, {"format": number, "identities": read_json(path)})
    elif path.name == "trajectory.json":
        write_json(path, {**read_json(path), "format": number})
    else:
        write_sealed(path, {**read_json(path), "format": number})


def contents(folder):
    """Every file but locks."""
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "lock" not in path.name
    }


def words(typed, how):
    if not isinstance(how, str):
        return how
    name, *more = how.split()
    return (*typed(name), "name=again", *more)


@pytest.mark.parametrize("pattern,how", FILES.items(), ids=[path.partition("/")[2] for path in FILES])
def test_an_older_release_says_so_and_touches_nothing(runs, lth, typed, pattern, how):
    (path,) = runs.glob(pattern)
    make_newer(path)
    (path.parent / ".tmp-0123456789abcdef").write_text("of a writer of the newer release")
    if ANSWERS not in pattern:
        shutil.rmtree(next(runs.glob(f".store/{ANSWERS}*")))  # nobody needs them: gc would be right
    before = contents(runs)
    if how is not None:
        asked = lth(*words(typed, how), "--quiet")
        assert asked.code == 2, asked.err
        known = newest(path)
        told = f"{path.name} was written by a newer lth, format {known + 1}; this one reads up to {known}"
        assert told in asked.err
        assert "update lth" in asked.err
    lth("gc", "--yes")
    after = contents(runs)
    assert {at: after.get(at) for at in before} == before
    assert [at for at in after if at not in before and "again" not in at.relative_to(runs).parts] == []
    if ".sweeps" not in pattern and path.name != ".uses":
        told = json.loads(lth("verify", "--json").out)
        assert (told["faults"], told["newer"] > 0) == (0, True), told
        found = [one for every in told["checked"].values() for one in every]
        assert {one["kind"] for one in found} == {"newer"}
        assert {one["path"] for one in found} == {str(path.relative_to(runs.parent))}


def test_verify_tells_newer_files_from_damage(runs, lth):
    (state,) = runs.glob(f".store/{DENSE}*/step_00000010.safetensors")
    make_newer(state)
    (runs / "ticket/round_02/mask.safetensors").write_bytes(b"\0" * 100)
    told = lth("verify")
    assert told.code == 1
    assert "shared store: no faults, 1 file of a newer lth" in told.out
    assert "ticket: 2 faults" in told.out


@pytest.mark.parametrize("pattern", [f".store/{DENSE}*/step_00000000.safetensors", "ticket/run.json"])
def test_nothing_is_freed_beside_newer_files(runs, lth, pattern):
    """Nor what only a run of the newer release may need: where it keeps its states is not known."""
    (path,) = runs.glob(pattern)
    make_newer(path)
    for name in ("halfway", "student", "seeds-seed_0", "seeds-seed_1"):
        shutil.rmtree(runs / name)
    shutil.rmtree(runs / "ticket" / "round_00")
    before = contents(runs)
    freed = lth("gc", "--yes")
    assert freed.code == 2 and "written by a newer lth" in freed.err
    assert contents(runs) == before


def test_a_file_that_is_newer_and_cut_is_newer(runs, lth):
    """How a newer format ends is not known: nothing is called damaged by the rules of this one."""
    (state,) = runs.glob(f".store/{DENSE}*/step_00000010.safetensors")
    make_newer(state)
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(NewerFormat):
        tensors.read_tensors(state, "state")


def test_a_newer_release_reads_older_files(runs, lth, typed, steps, monkeypatch):
    """Every number raised at once: what release 0.1.0 wrote is whole, reused and gone on with."""
    for module in (tensors, lines, rounds, runs_module, analyses, sweeps):
        monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert lth("verify").out.count("no faults") == 6
    again = lth(*typed("ticket"), "name=again", "--quiet")
    assert again.code == 0, again.err
    assert steps("again") == (0, 42)
    assert lth(*typed("halfway"), "name=halfway", "--quiet").code == 0
    assert "is answered already" in lth(*ANALYZE, "analysis.points=3").err
    assert lth(*typed("seeds-seed_0"), "name=seeds", "--quiet").code == 0
    assert json.loads((runs / "again/run.json").read_text())["format"] == 2
    assert lth("verify").out.count("no faults") == 7
    assert files.read_json(runs / "ticket/run.json")["format"] == 1


def test_images_that_a_newer_release_decoded_are_left_alone(tmp_path):
    labels = torch.zeros(1, dtype=torch.int64)
    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    path = tmp_path / "images.safetensors"
    image_cache.cached(path, lambda: Arrays(images, labels, images, labels, classes=1))
    make_newer(path)
    before = path.read_bytes()
    again = image_cache.cached(path, lambda: Arrays(images + 1, labels, images, labels, classes=1))
    assert torch.equal(again.train_inputs, images + 1)
    assert path.read_bytes() == before
