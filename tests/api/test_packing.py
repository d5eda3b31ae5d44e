"""A packed run comes back whole; an archive that lies is refused whole."""

import io
import json
import shutil
import tarfile

import pytest


@pytest.fixture(scope="module")
def packed(tmp_path_factory, lth_in, small):
    folder = tmp_path_factory.mktemp("packed")
    assert lth_in(folder, "prune", *small, "name=imp", "pruning.rounds=1").code == 0
    assert lth_in(folder, "pack", "imp", "-o", "imp.tar").code == 0
    return folder / "imp.tar"


def test_an_unpacked_run_rewinds(packed, lth_in, tmp_path) -> None:
    assert lth_in(tmp_path, "unpack", str(packed)).code == 0
    assert lth_in(tmp_path, "pack", "imp", "-o", "again.tar").code == 0
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()
    done = lth_in(tmp_path, "rewind", "imp", "name=more", "rewind.to=0it")
    assert done.code == 0, done.err


def rewritten(packed, target, change):
    """The archive with its members, (header, bytes), changed."""
    with tarfile.open(packed) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(target, "w") as archive:
        for member, content in change(members):
            archive.addfile(member, io.BytesIO(content))


def _link(members):
    members[1][0].type, members[1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    return members


def _outside(members):
    members[1][0].name = "../outside"
    return members


LIES = {
    "outside": _outside,
    "link": _link,
    "twice": lambda members: [*members, members[-1]],
    "missing": lambda members: members[:-1],
    "flipped": lambda members: [*members[:-1], (members[-1][0], members[-1][1][:-1] + b"\0")],
    "listed outside": lambda members: [
        (m, c.replace(b'"config.yaml"', b'"../fig.yaml"')) for m, c in members
    ],
    "no list": lambda members: members[1:],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_whole(packed, lth_in, tmp_path, lie) -> None:
    rewritten(packed, tmp_path / "lie.tar", LIES[lie])
    done = lth_in(tmp_path, "unpack", "lie.tar")
    assert done.code == 1 and "lie.tar" in done.err, done.err
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert {path.name for path in tmp_path.rglob("*")} <= {"lie.tar", "runs"}


def test_the_card_says_how_to_make_it_again(packed, lth_in, tmp_path) -> None:
    with tarfile.open(packed) as archive:
        text = archive.extractfile("CARD.md").read().decode()
    assert lth_in(tmp_path, "unpack", str(packed)).code == 0
    rows = json.loads(lth_in(tmp_path, "show", "imp", "--json").out)["results"]
    for row in rows:
        assert f"| {row['round']} | {100 * row['density']:.4g} | {100 * row['test_accuracy']:.2f} |" in text
    assert "name=imp pruning.rounds=1" in text and "lth rewind imp" in text
    assert "lr: 0.005" in text and "- torch: " in text
    shown = (tmp_path / "runs/imp/round_01/summary.json").read_text()
    ends = [line.split("`")[3] for line in text.splitlines() if line.startswith("| 1 | `")]
    assert len(ends) == 1 and ends[0] in shown
    assert (tmp_path / "runs/imp/CARD.md").read_text() == text
    assert "tmp" not in text  # no place of the machine it ran on


def test_an_archive_larger_than_allowed_is_refused_before_anything_is_written(
    packed, lth_in, tmp_path
) -> None:
    done = lth_in(tmp_path, "unpack", str(packed), "--most", "0.00001")
    assert done.code == 2 and "more than the 10,000 allowed; --most" in done.err
    rewritten(
        packed,
        tmp_path / "bomb.tar",
        lambda members: [
            (_sized(m, c), c)
            for m, c in (
                (m, c.replace(b'"size": ', b'"size": 9999')) if m.name == "manifest.json" else (m, c)
                for m, c in members
            )
        ],
    )
    done = lth_in(tmp_path, "unpack", "bomb.tar")
    assert done.code == 1 and "more than the archive has" in done.err
    assert not (tmp_path / "runs").exists()


def _sized(member, content):
    member.size = len(content)
    return member


def _moments(run):
    """How many tensors of the optimizer the last state of its first round has, and whether it is partial."""
    from lth_cli.store.states import load_state, stored_steps

    state = load_state(list(stored_steps(run / "round_00" / "checkpoints").values())[-1])
    return len(state.optimizer), state.partial


def test_states_have_their_optimizer_on_request_and_nothing_trains_on_without(
    packed, lth_in, tmp_path, small
) -> None:
    home = packed.parent
    assert lth_in(home, "pack", "imp", "-o", str(tmp_path / "full.tar"), "--optimizer").code == 0
    assert (tmp_path / "full.tar").stat().st_size > 1.2 * packed.stat().st_size
    ends = {}
    longer = ("prune", "--from", "imp", "name=longer", "training.length=3ep", "--json", "-q")
    for name, archive in (("full", tmp_path / "full.tar"), ("slim", packed)):
        folder = tmp_path / name
        folder.mkdir()
        assert lth_in(folder, "unpack", str(archive)).code == 0
        assert lth_in(folder, "verify", "imp").code == 0
        tensors, partial = _moments(folder / "runs" / "imp")
        assert (tensors > 0, partial) == (name == "full", name == "slim")
        # The shared store gets its states; then a longer training goes on, or begins again.
        assert lth_in(folder, "rewind", "imp", "name=more", "rewind.technique=learning_rate").code == 0
        done = lth_in(folder, *longer)
        assert done.code == 0, done.err
        ends[name] = [row["test_loss"] for row in json.loads(done.out)["results"]]
    done = lth_in(home, *longer)
    assert ends["full"] == ends["slim"] == [row["test_loss"] for row in json.loads(done.out)["results"]]
    kept = ("rewind", "imp", "name=kept", "rewind.technique=learning_rate", "rewind.optimizer=kept")
    assert lth_in(tmp_path / "full", *kept).code == 0
    done = lth_in(tmp_path / "slim", *kept)
    assert done.code == 1 and "--optimizer keeps it" in done.err
