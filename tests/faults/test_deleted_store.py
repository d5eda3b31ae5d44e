"""The shared store may be deleted at any time: what is missing is trained again, and results are the same."""

import shutil

import harness
import pytest

from lth_cli.store import verify
from lth_cli.store.files import digest
from lth_cli.store.states import State, load_state
from lth_cli.store.trajectories import TrajectoryStore

DESCRIPTION = {"any": "training"}
ID = digest(DESCRIPTION)


def wrong(folder, expected):
    """Files of the runs that differ from undisturbed ones; how many steps were reused may."""
    found = harness.results_of(folder)
    kept = {path: sha for path, sha in expected.items() if not path.startswith(".store")}
    ours = {path: sha for path, sha in found.items() if not path.startswith(".store")}
    differing = harness.differences(ours, kept)
    return [path for path in differing if not path.endswith(("results.csv", "summary.json"))]


def test_deleted_at_any_call(zygote, pruned, tmp_path):
    """Before the first call of each kind, and twice more in the same run; and between a training and its links."""
    expected, undisturbed = pruned
    links = [n for n, call in enumerate(undisturbed.calls, 1) if call.startswith("link run/round_01/ch")]
    first = next(n for n, call in enumerate(undisturbed.calls, 1) if call.startswith("mkdir .store"))
    for turn, at in enumerate([*range(first, len(undisturbed.calls), len(undisturbed.calls) // 6), *links]):
        place = tmp_path / str(turn)
        outcome = zygote.run(place, harness.PRUNE, delete_at=[at, at + 11, at + 23])
        assert outcome.code == 0, f"{undisturbed.calls[at - 1]}: {outcome.output[-2000:]}"
        assert wrong(place, expected) == [], undisturbed.calls[at - 1]
        assert harness.faults_of(place) == []
        shutil.rmtree(place)


@pytest.mark.parametrize(
    "command", [harness.REWIND, harness.DISTIL, harness.ANALYZE], ids=lambda c: c.arguments[0]
)
def test_deleted_under_other_commands(zygote, tmp_path, command):
    """Also states of other runs, which this one cannot train and has taken from there."""
    expected, undisturbed = harness.reference(zygote, tmp_path / "calm", command)
    for first in range(5, len(undisturbed.calls), len(undisturbed.calls) // 2):
        place = tmp_path / str(first)
        harness.prepare(zygote, place, command)
        outcome = zygote.run(place, command, delete_at=[*range(first, first + 60, 13)])
        assert outcome.code == 0, f"{undisturbed.calls[first - 1]}: {outcome.output[-2000:]}"
        assert wrong(place, expected) == [], undisturbed.calls[first - 1]


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path / ".store")


def test_a_state_is_stored_with_its_description(store):
    """`trajectory ... has no description yet` was what a training ended with after the store was deleted."""
    store.describe(ID, DESCRIPTION)
    shutil.rmtree(store.root)
    store.save(ID, State(3), DESCRIPTION)
    store.save_resume_point(ID, State(4), DESCRIPTION)
    assert store.description(ID) == DESCRIPTION
    assert verify.verify_store(store) == []


def test_verify_beside_a_training(store, monkeypatch):
    """A resume point that is dropped between listing and reading is no fault, nor is a store deleted meanwhile."""
    store.save(ID, State(3), DESCRIPTION)
    store.save_resume_point(ID, State(4), DESCRIPTION)

    def dropped_just_now(path):
        path.unlink()
        return load_state(path)

    monkeypatch.setattr(verify, "load_state", dropped_just_now)
    assert verify.verify_store(store) == []
