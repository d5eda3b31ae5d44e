import csv

import pytest

from lth_cli.config.errors import RequestError
from lth_cli.report.sweeps import as_json, print_sweep, status, update_table
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import Sweep, SweepPoint, find_sweep, list_sweeps


def make(runs, count=1, **fields):
    points = [
        SweepPoint(i, ["a=1", f"seed={i}"], f"run-{i}", 3, {"threads": 1}, **fields) for i in range(count)
    ]
    return Sweep.write(runs, "s", points, kind="prune", command=["lth"], launcher={"kind": "slurm"})


def make_run(runs, state, error=None):
    return Run.create(runs, "run-0", {}, {"kind": "prune", "state": state, "error": error})


def state_of(sweep, cluster=None):
    [one] = status(sweep, cluster)
    return one.state, one.error


@pytest.mark.parametrize(
    ("run", "noted", "expected"),
    [
        (None, None, ("not started", None)),
        (None, ("failed", "no data"), ("failed", "no data")),
        (None, ("running", None), ("interrupted", None)),
        (None, ("interrupted", None), ("interrupted", None)),
        ("finished", ("failed", "earlier"), ("finished", None)),
        ("failed", None, ("failed", "diverged")),
        ("interrupted", None, ("interrupted", None)),
        ("interrupted", ("failed", "killed"), ("failed", "killed")),
        ("running", None, ("interrupted", None)),  # nobody holds its lock
        ("running", ("failed", "killed"), ("failed", "killed")),
    ],
)
def test_state_without_a_cluster(tmp_path, run, noted, expected):
    sweep = make(tmp_path)
    if run:
        make_run(tmp_path, run, "diverged" if run == "failed" else None)
    if noted:
        sweep.note(0, *noted)
    assert state_of(sweep) == expected


def test_the_note_of_a_killed_launcher_is_not_believed_by_the_next(tmp_path):
    """It stands where another point may be now, or where no run was made yet; that of a job stays."""
    make(tmp_path).note(0, "running")
    sweep = make(tmp_path)
    with sweep.lock().acquire():
        assert state_of(sweep)[0] == "waiting"
    make(tmp_path, job="7").note(0, "failed", "no data")
    assert make(tmp_path, job="7").noted(0)["error"] == "no data"


def test_waiting_and_running_while_a_launcher_lives(tmp_path):
    sweep = make(tmp_path)
    with sweep.lock().acquire():
        assert state_of(sweep)[0] == "waiting"
        sweep.note(0, "running")
        assert state_of(sweep)[0] == "running"
        run = make_run(tmp_path, "running")
        with run.lock().acquire():
            assert state_of(sweep)[0] == "running"
    assert state_of(sweep)[0] == "interrupted"


@pytest.mark.parametrize(
    ("job", "run", "expected"),
    [
        ("PENDING", None, "queued"),
        ("PENDING", "interrupted", "queued"),  # requeued
        ("RUNNING", None, "running"),
        ("COMPLETING", "finished", "finished"),
        ("CANCELLED", "interrupted", "cancelled"),
        ("OUT_OF_MEMORY", "running", "failed"),
        ("NODE_FAIL", None, "failed"),
        ("FAILED", "failed", "failed"),
        (None, "interrupted", "interrupted"),  # the cluster has forgotten it
        (None, "finished", "finished"),
    ],
)
def test_state_with_a_cluster(tmp_path, job, run, expected):
    sweep = make(tmp_path, job="7_0")
    if run:
        make_run(tmp_path, run, "diverged" if run == "failed" else None)
    state, error = state_of(sweep, {} if job is None else {"7_0": job})
    assert state == expected
    if expected == "failed":
        assert error == ("diverged" if run == "failed" else f"the job ended as {job}")


def test_called_off(tmp_path):
    sweep = make(tmp_path, job="7_0")
    sweep.set_cancelled()
    assert state_of(sweep, {})[0] == "cancelled"


def test_a_damaged_run_is_shown_and_harms_no_other(tmp_path):
    sweep = make(tmp_path, count=2)
    (make_run(tmp_path, "finished").path / "run.json").write_text("{")
    known = status(sweep)
    assert [one.state for one in known] == ["failed", "not started"]
    assert "damaged" in known[0].error


def test_table_of_200_points_has_a_line_for_each(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sweep = make(tmp_path, count=200)
    update_table(sweep)
    with sweep.table_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["overrides"] for row in rows] == [f"a=1 seed={i}" for i in range(200)]
    assert rows[7]["run"] == "run-7"
    assert rows[7]["path"] == str(tmp_path / "run-7")
    known = status(sweep)
    print_sweep(sweep, known)
    lines = capsys.readouterr().out.splitlines()
    assert sum("not started" in line for line in lines) == 201  # each, and the count
    assert max(map(len, lines[:-1])) <= 80
    assert len(as_json(sweep, known)["points"]) == 200


def test_found_by_name_last_launched_first(tmp_path):
    sweep = make(tmp_path)
    assert find_sweep(tmp_path, "s").points() == sweep.points()
    with pytest.raises(RequestError, match=r"no sweep 'z'.*there are: s"):
        find_sweep(tmp_path, "z")
    (tmp_path / ".sweeps" / "broken").mkdir()
    (tmp_path / ".sweeps" / "broken" / "sweep.json").write_text("{}")
    sweeps, faults = list_sweeps(tmp_path)
    assert [found.name for found in sweeps] == ["s"]
    assert len(faults) == 1
