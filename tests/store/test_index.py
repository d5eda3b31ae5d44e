"""The index of runs: what is told is what the files say, whatever stands in it."""

import json
import os
import shutil

import pytest

from lth_cli.config.errors import LthError
from lth_cli.store import index
from lth_cli.store.runs import Run
from lth_cli.store.tags import change_tags

ROW = {
    "round": 0,
    "density": 1.0,
    "sparsity": 0.0,
    "test_accuracy": 0.5,
    "steps_trained": 7,
    "steps_reused": 1,
}


@pytest.fixture
def runs_dir(tmp_path):
    for name in ("a", "b"):
        run = Run.create(tmp_path / "runs", name, {"seed": 1}, {"kind": "train", "state": "finished"})
        run.write_results([{**ROW, "seconds": 0.5}])
    return tmp_path / "runs"


@pytest.fixture
def settled(monkeypatch):
    """A clock that counts everything written before as long over."""
    monkeypatch.setattr(index, "_TICK_NS", -1)


def read(runs_dir):
    return {entry.name: entry for entry in index.read_runs(runs_dir) if isinstance(entry, index.Entry)}


def reads(runs_dir, monkeypatch):
    """Names of the runs that are read anew."""
    found, really = [], index._read
    with monkeypatch.context() as patch:
        patch.setattr(index, "_read", lambda folder: found.append(folder.name) or really(folder))
        read(runs_dir)
    return found


def test_only_what_changed_is_read_again(runs_dir, settled, monkeypatch):
    assert reads(runs_dir, monkeypatch) == ["a", "b"]
    assert reads(runs_dir, monkeypatch) == []
    change_tags(runs_dir / "a", ["x"])
    assert reads(runs_dir, monkeypatch) == ["a"]
    assert read(runs_dir)["a"].content["tags"] == ["x"]
    Run(runs_dir / "b").write_results([{**ROW, "test_accuracy": 0.9}], "reinit")
    assert read(runs_dir)["b"].controls["reinit"][0]["test_accuracy"] == 0.9
    assert reads(runs_dir, monkeypatch) == []
    (runs_dir / index.FILE).unlink()
    assert reads(runs_dir, monkeypatch) == ["a", "b"]


def test_a_result_edited_in_place_with_its_old_time_is_seen(runs_dir, settled):
    read(runs_dir)
    path = runs_dir / "a" / "results.csv"
    before = path.stat()
    path.write_text(path.read_text().replace("0.5", "0.7", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(runs_dir)["a"].last["test_accuracy"] == 0.7


def test_what_is_just_written_is_not_kept_yet(runs_dir, monkeypatch):
    assert reads(runs_dir, monkeypatch) == ["a", "b"]
    assert reads(runs_dir, monkeypatch) == ["a", "b"]
    assert not (runs_dir / index.FILE).exists()


def test_runs_that_are_gone_renamed_or_copied(runs_dir, settled):
    read(runs_dir)
    (runs_dir / "a").rename(runs_dir / "c")
    shutil.copytree(runs_dir / "b", runs_dir / 'd "quoted"')
    assert sorted(read(runs_dir)) == ["b", "c", 'd "quoted"']
    assert [json.loads(line).get("name") for line in (runs_dir / index.FILE).open()][1:] == [
        "b",
        "c",
        'd "quoted"',
    ]
    shutil.rmtree(runs_dir / "b")
    assert sorted(read(runs_dir)) == ["c", 'd "quoted"']


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]\n",
        b'{"format": 1}\n{"name":"a","files":{}}\n{"name":"b"',
        b'{"format": 99}\n{"name":"a"}\n',
    ],
)
def test_an_index_that_is_torn_or_of_another_release_tells_nothing(runs_dir, settled, content):
    path = runs_dir / index.FILE
    path.write_bytes(content)
    assert read(runs_dir)["a"].last["test_accuracy"] == 0.5
    assert (path.read_bytes() == content) == (b"99" in content), "what a newer release wrote is left alone"


def test_a_damaged_run_is_told_each_time_and_not_kept(runs_dir, settled):
    (runs_dir / "a" / "results.csv").write_text("not,a\ntable")
    for _ in range(2):
        faults = [entry for entry in index.read_runs(runs_dir) if isinstance(entry, LthError)]
        assert len(faults) == 1 and "results.csv is damaged" in str(faults[0])
    assert list(read(runs_dir)) == ["b"]


def test_a_folder_that_cannot_be_written_to(runs_dir, settled, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    monkeypatch.setattr(index, "_write", refuse)
    assert sorted(read(runs_dir)) == ["a", "b"]
    assert not (runs_dir / index.FILE).exists()


def test_whether_a_run_is_at_work_is_asked_each_time(runs_dir, settled):
    run = Run(runs_dir / "a")
    run.update(state="running")
    assert read(runs_dir)["a"].state == "interrupted"
    with run.lock().acquire():
        assert read(runs_dir)["a"].state == "running"
    assert read(runs_dir)["a"].state == "interrupted"


def test_a_folder_without_runs_is_left_as_it_is(tmp_path):
    assert read(tmp_path) == {} and read(tmp_path / "nothing") == {}
    assert list(tmp_path.iterdir()) == []
