"""What commands print and leave behind."""

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest
import yaml

PROGRAM = (sys.executable, "-c", "from lth_cli.cli.main import main; main()")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    """Two seeds with controls, and a dense run."""
    folder = tmp_path_factory.mktemp("cli")
    done = lth_in(
        folder, "prune", "-m", *small, "name=t", "seed=0,1", "pruning.rounds=2", "controls.kinds=[reinit]"
    )
    assert done.code == 0, done.err
    (folder / "printed").write_text(done.out)
    assert lth_in(folder, "train", *small, "name=dense", "seed=3").code == 0
    return folder


def test_the_result_is_a_table_with_mean_and_spread_and_what_comes_next(folder):
    text = (folder / "printed").read_text()
    assert "ticket" in text
    assert "reinit" in text
    assert "±" in text
    assert "Stored in runs/t-seed_0" in text
    assert "lth compare t-seed_0 t-seed_1 --figure accuracy.png" in text
    assert "\t63.97\t" in text


def test_show(folder, lth_in):
    done = lth_in(folder, "show", "t-seed_1")
    assert done.code == 0
    for words in (
        "t-seed_1",
        "finished",
        "lenet_300_100 (lth_cli.models.mlp.MLP)",
        "2ep, batch 60",
        "ticket",
        "reinit",
    ):
        assert words in done.out
    assert "dense" in lth_in(folder, "show", "dense").out
    assert lth_in(folder, "show", "runs/dense").code == 0
    assert lth_in(folder.parent, "show", "dense", "--runs-dir", str(folder / "runs")).code == 0


def test_show_as_json(folder, lth_in):
    shown = json.loads(lth_in(folder, "show", "t-seed_0", "--json").out)
    assert [row["round"] for row in shown["results"]] == [0, 1, 2]
    assert [row["round"] for row in shown["controls"]["reinit"]] == [1, 2]
    assert (shown["state"], shown["config"]["seed"]) == ("finished", 0)
    assert shown["steps_trained"] == 5 * 16


def test_ls(folder, lth_in, tmp_path):
    done = lth_in(folder, "ls")
    assert done.code == 0
    assert all(name in done.out for name in ("t-seed_0", "t-seed_1", "dense"))
    listed = json.loads(lth_in(folder, "ls", "--json").out)
    assert [run["path"] for run in listed] == ["runs/dense", "runs/t-seed_0", "runs/t-seed_1"]
    assert "No runs in runs yet" in lth_in(tmp_path, "ls").out
    assert json.loads(lth_in(tmp_path, "ls", "--json").out) == []
    assert list(tmp_path.iterdir()) == []


def test_compare_with_a_figure(folder, lth_in, tmp_path):
    words = ("compare", "t-seed_0", "t-seed_1", "dense", "--axis", "madds")
    refused = lth_in(folder, *words)
    assert refused.code == 2 and "add --figure" in refused.err
    for wrong, message in (("deep/a.png", "deep is no folder"), ("a.gif", ".png, .svg or .pdf")):
        refused = lth_in(folder, *words, "--figure", str(tmp_path / wrong))
        assert (refused.code, message in refused.err, refused.out) == (2, True, "")
    for name, files in (("a", ["a.png", "a.svg"]), ("b.pdf", ["b.pdf"])):
        done = lth_in(folder, *words, "--figure", str(tmp_path / name))
        assert done.code == 0, done.err
        assert "(2 runs)" in done.out
        assert sorted(path.name for path in tmp_path.glob(f"{name[0]}.*")) == files
    assert "multiply-adds remaining" in (tmp_path / "a.svg").read_text()


def test_json_result_of_a_run(lth, small):
    done = lth("train", *small, "--json", "name=x")
    assert done.code == 0
    result = json.loads(done.out)
    assert (result["steps_trained"], result["steps_reused"], result["state"]) == (16, 0, "finished")
    assert done.err == ""
    again = json.loads(lth("train", *small, "--json", "name=y").out)
    assert (again["steps_trained"], again["steps_reused"]) == (0, 16)
    sweep = json.loads(lth("train", *small, "--json", "-m", "name=z", "seed=0,1").out)
    assert [run["config"]["seed"] for run in sweep] == [0, 1]


def test_names_are_made_of_what_was_overridden(lth, tmp_path, small):
    assert lth("train", "training.length=1it", "device=cpu", "threads=1", "evaluation.train=false").code == 0
    assert lth("train", "training.length=1it", "optimizer=sgd", "seed=4", "threads=1").code == 0
    assert {path.name for path in (tmp_path / "runs").iterdir() if path.name[0] != "."} == {
        "train-length_1it",
        "train-length_1it-optimizer_sgd-seed_4",
    }


def test_a_finished_run_is_gone_on_from(tmp_path, lth_in, small):
    asked = (*small, "name=first", "pruning.rounds=1", "controls.kinds=[random]")
    assert lth_in(tmp_path, "prune", *asked).code == 0
    done = lth_in(tmp_path, "prune", "--from", "first", "pruning.rounds=2", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and (tmp_path / "runs" / "first-rounds_2").is_dir(), done.err
    # As a run asked for from the beginning, of which one round is new, with its control.
    assert found["steps_trained"] == 2 * found["steps_reused"] // 3, found
    whole = lth_in(tmp_path, "prune", *asked, "name=whole", "pruning.rounds=2", "--json")
    assert json.loads(whole.out)["steps_trained"] == 0
    refused = lth_in(tmp_path, "prune", "--from", "first", "--cfg", "job")
    assert refused.code == 2 and "--from" in refused.err
    lth_in(tmp_path, "rewind", "first", "name=again")
    refused = lth_in(tmp_path, "prune", "--from", "again", "pruning.rounds=3")
    assert refused.code == 2 and "lth rewind first does so again" in refused.err


def test_cfg_prints_and_runs_nothing(lth, tmp_path):
    done = lth("prune", "--cfg", "job", "model=conv2", "seed=7")
    assert done.code == 0
    printed = yaml.safe_load(done.out)
    assert (printed["seed"], printed["model"]["depth"], printed["training"]["length"]) == (7, 2, "40ep")
    part = lth("prune", "--cfg", "job", "--package", "optimizer")
    assert yaml.safe_load(part.out)["_target_"] == "torch.optim.Adam"
    assert lth("train", "--info", "defaults").code == 0
    assert list(tmp_path.iterdir()) == []


def test_lines_when_not_a_terminal_and_silence_when_quiet(lth, small):
    plain = lth("prune", *small, "name=a", "pruning.rounds=1")
    lines = plain.err.splitlines()
    assert lines[0].startswith("a: [1/2] round 0 (100 % of weights): train ")
    assert lines[1].startswith("a: [2/2] round 1 (80 % of weights): ")
    assert "test" in lines[1]
    quiet = lth("prune", *small, "name=b", "pruning.rounds=1", "--quiet", "seed=1")
    assert quiet.err == ""
    assert "ticket" in quiet.out


def test_live_bars_in_a_terminal(tmp_path, small):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "prune", *small, "name=live", "pruning.rounds=1", "training.length=100ep"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "COLUMNS": "150"},
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65536)
        except OSError:  # Linux ends a terminal whose other side is closed with an error
            break
    os.close(ours)
    assert process.wait(300) == 0
    text = seen.decode(errors="replace")
    assert "\x1b[" in text
    for words in ("live", "round 0 (100 %)", "round 1 (80 %)", "loss ", "/800", "test "):
        assert words in text, words


def test_version_and_help(lth):
    assert lth("--version").out.startswith("lth ")
    assert lth("--help").code == 0
    for command in ("train", "prune", "ls", "show", "compare"):
        assert lth(command, "--help").code == 0


def test_a_reader_who_leaves_is_no_error_to_shout_about(folder, lth_process):
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -c 1', "_", *PROGRAM, "ls"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "fault" not in done.stderr
