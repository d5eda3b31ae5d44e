import errno
import os

import pytest
import torch

from lth_cli.store import files
from lth_cli.store.files import Damaged
from lth_cli.store.locks import Locked
from lth_cli.store.states import State, save_state
from lth_cli.store.trajectories import TrajectoryStore

DESCRIPTION = {"schema": 1, "model": "lenet", "seeds": {"init": 0}}
ID = files.digest(DESCRIPTION)


def state(step):
    return State(step, {"w": torch.full((4,), float(step))})


@pytest.fixture
def told():
    return []


@pytest.fixture
def store(tmp_path, told):
    return TrajectoryStore(tmp_path / ".store", warn=told.append)


def filled(store, *steps):
    for step in steps:
        store.save(ID, state(step), DESCRIPTION)
    return store


def test_empty(store):
    assert store.identities() == []
    assert store.steps(ID) == []
    assert store.load(ID, 0) is None
    assert store.nearest(ID, 10) is None
    assert store.metrics(ID) == []
    assert store.spans_by(ID, "r", 0, 10) == []
    assert store.description(ID) is None
    assert store.size(ID) == 0
    assert store.links(ID, 0) == 0
    store.cut_metrics(ID, 5)
    store.sweep()
    assert not store.root.exists()


def test_save_and_nearest(store):
    filled(store, 0, 10, 20)
    assert store.steps(ID) == [0, 10, 20]
    assert store.description(ID) == DESCRIPTION
    assert [store.nearest(ID, at_most).step for at_most in (0, 9, 10, 999)] == [0, 0, 10, 20]
    assert torch.equal(store.load(ID, 10).weights["w"], state(10).weights["w"])
    store.discard(ID, 10)
    store.discard(ID, 10)
    assert store.steps(ID) == [0, 20]
    assert store.identities() == [ID]
    assert store.size(ID) > 0


def test_identity_is_the_digest_of_the_description(store):
    with pytest.raises(ValueError, match="identity"):
        store.save(ID, state(0), {"other": 1})
    with pytest.raises(ValueError, match="not the identity"):
        store.folder("../x")
    filled(store, 0)
    store.save(ID, state(1), DESCRIPTION)
    (store.folder(ID) / "trajectory.json").write_text('{"other": 1}')
    with pytest.raises(Damaged):
        store.description(ID)
    store.save(ID, state(2), DESCRIPTION)
    assert store.description(ID) == DESCRIPTION


def test_damaged_state_is_set_aside_and_the_earlier_one_used(store, told):
    filled(store, 0, 10, 20)
    path = store.state_path(ID, 20)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert store.nearest(ID, 99).step == 10
    assert store.steps(ID) == [0, 10]
    assert path.with_name(path.name + ".damaged").exists()
    assert len(told) == 1
    assert "step_00000020.safetensors.damaged" in told[0]
    filled(store, 20)
    assert store.nearest(ID, 99).step == 20


def test_state_of_another_trajectory_or_step_is_damage(store, told):
    filled(store, 0)
    save_state(store.state_path(ID, 5), state(5), "f" * 64)
    save_state(store.state_path(ID, 6), state(7), ID)
    assert store.nearest(ID, 99).step == 0
    assert len(told) == 2


def test_damage_in_a_read_only_store_is_passed_over(store, told, monkeypatch):
    filled(store, 0, 10)
    store.state_path(ID, 10).write_bytes(b"x")

    def read_only(*_):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("pathlib.Path.replace", read_only)
    assert store.nearest(ID, 10).step == 0
    assert "not used" in told[0]


def test_metrics_are_cut_back_to_the_last_state(store):
    store.append_metrics(ID, [{"step": 5, "loss": 1.0}, {"step": 10, "loss": 0.5}])
    store.append_metrics(ID, [{"step": 15, "loss": 0.25}])
    path = store.folder(ID) / "metrics.jsonl"
    before = path.stat()
    store.cut_metrics(ID, 15)
    assert path.stat().st_ino == before.st_ino
    with path.open("a") as file:
        file.write('{"step": 20, "lo')
    store.cut_metrics(ID, 10)
    assert store.metrics(ID) == [{"step": 5, "loss": 1.0}, {"step": 10, "loss": 0.5}]
    assert path.read_text().endswith("}\n")
    store.cut_metrics(ID, -1)
    assert store.metrics(ID) == []
    with pytest.raises(ValueError, match="integer step"):
        store.append_metrics(ID, [{"loss": 1.0}])


def test_torn_metrics_alone_are_cut(store):
    store.append_metrics(ID, [{"step": 5}])
    path = store.folder(ID) / "metrics.jsonl"
    with path.open("a") as file:
        file.write("x")
    store.cut_metrics(ID, 5)
    assert store.metrics(ID) == [{"step": 5}]
    assert path.read_text().endswith("}\n")


def test_spans_by_has_each_step_once(store):
    for run, start, end in [("a", 0, 10), ("a", 5, 20), ("b", 20, 30), ("a", 40, 50), ("a", 42, 44)]:
        store.add_segment(ID, run, start, end)
    assert store.spans_by(ID, "a", 0, 100) == [(0, 10), (10, 20), (40, 50)]
    assert store.spans_by(ID, "a", 8, 43) == [(8, 10), (10, 20), (40, 43)]
    assert store.spans_by(ID, "b", 0, 25) == [(20, 25)]
    assert store.spans_by(ID, "c", 0, 100) == []


def test_damaged_records_are_set_aside_but_for_their_good_lines(store):
    told = []
    store._warn = told.append
    store.append_metrics(ID, [{"step": 5, "loss": 1.5}, {"step": 10, "loss": 2.5}, {"step": 15, "loss": 3.5}])
    store.add_segment(ID, "a", 0, 10)
    path = store.folder(ID) / "metrics.jsonl"
    damaged = path.read_text().replace("2.5", "2.4")
    path.write_text(damaged)
    assert [line["step"] for line in store.metrics(ID)] == [5, 15]
    assert store.damaged_records(ID)
    store.repair_records(ID)
    assert not store.damaged_records(ID)
    assert (path.parent / "metrics.jsonl.damaged").read_text() == damaged
    assert [line["step"] for line in store.metrics(ID)] == [5, 15]
    assert len(told) == 1 and "metrics.jsonl is damaged: 1 of its lines" in told[0]
    (store.folder(ID) / "segments.jsonl").write_text('{"run":"a"}\n[1]\n"check"\nnull\n\x00\n')
    assert store.spans_by(ID, "a", 0, 10) == []
    store.repair_records(ID)
    assert "count as reused" in told[1]
    assert (store.folder(ID) / "segments.jsonl").read_text() == ""


@pytest.mark.parametrize("linking", [True, False])
def test_adopt_and_links(store, tmp_path, monkeypatch, linking):
    def no_link(*_):
        raise OSError(errno.EXDEV, "other device")

    outside = tmp_path / "s.safetensors"
    save_state(outside, state(10), ID)
    with monkeypatch.context() as patch:
        if not linking:
            patch.setattr(os, "link", no_link)
        assert store.adopt(ID, outside, DESCRIPTION)
    assert not store.adopt(ID, outside, DESCRIPTION)
    assert store.links(ID, 10) == (2 if linking else 1)
    outside.unlink()
    assert store.load(ID, 10).step == 10
    save_state(outside, state(10), "f" * 64)
    with pytest.raises(Damaged, match="not of"):
        store.adopt(ID, outside, DESCRIPTION)


def test_remove_needs_the_lock_and_leaves_nothing(store):
    filled(store, 0)
    with store.lock(ID).acquire(), pytest.raises(Locked):
        store.remove(ID)
    assert store.steps(ID) == [0]
    store.remove(ID)
    store.remove(ID)
    assert list(store.root.iterdir()) == []


def test_leftovers_of_killed_writers(store):
    filled(store, 0)
    (store.folder(ID) / ".tmp-1").write_text("half")
    (store.root / ".tmp-2").mkdir()
    (store.root / ".tmp-2" / "x").write_text("half removed")
    assert store.identities() == [ID]
    store.clear_leftovers(ID)
    store.sweep()
    assert [p.name for p in store.root.iterdir()] == [ID]
    assert sorted(p.name for p in store.folder(ID).iterdir()) == [
        "step_00000000.safetensors",
        "trajectory.json",
    ]


def test_resume_point_is_used_where_it_is_nearer_and_dropped_once_passed(store, told):
    filled(store, 0, 20)
    store.save_resume_point(ID, state(12), DESCRIPTION)
    assert store.steps(ID) == [0, 20]
    assert [store.nearest(ID, at_most).step for at_most in (11, 12, 19, 20)] == [0, 12, 12, 20]
    store.drop_resume_point(ID, 11)
    assert store.nearest(ID, 15).step == 12
    store.save_resume_point(ID, state(25), DESCRIPTION)
    assert store.frontier(ID) == 25
    store.drop_resume_point(ID, 25)
    assert store.frontier(ID) == 20
    (store.folder(ID) / "resume.safetensors").write_bytes(b"x")
    assert store.nearest(ID, 30).step == 20
    assert len(told) == 1
