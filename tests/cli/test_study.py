import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lth_cli.cli.main import app
from lth_cli.cli.studying import Runner
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.store.sweeps import Sweep, folder_of
from lth_cli.store.yamls import read_yaml
from lth_cli.studies.finding import find
from lth_cli.studies.plan import make_plan

STUDY = """
about: tickets
paper: none
claim: bisected
overrides: {dataset: digits, training.length: 6it, evaluation.train: false, threads: 1, pruning.rounds: 1}
steps:
  imp: {command: prune, sweep: {seed: [0, 1]}}
  again: {command: rewind, from: [imp], overrides: {rounds: "1"}, sweep: {rewind.to: [3it]}}
  stable:
    command: analyze
    from: [imp]
    overrides: {analysis: instability, analysis.points: 3, "analysis.splits": "[test]"}
    next: {function: lth_cli.studies.branching.earliest_true, answers: stability, key: analysis.at, column: stable,
           lowest: 0, highest: 4, resolution: 1}
  longer: {command: train}
profiles: {quick: {without: [longer]}, whole: {about: all of it}}
tables:
  longer: {title: Left out here, of: [longer], rows: step}
  accuracy: {title: Accuracy, of: [imp, again], rows: step, columns: kind}
  stability: {title: Stability, of: [stable], answers: stability, metric: test_barrier, rows: step, columns: round}
  nothing: {title: Nothing, of: [imp], rows: round, where: {round: 9}}
figures: {there: {table: accuracy}, nothing: {table: nothing}}
holds:
  - {claim: impossible, check: 'accuracy["again", "ticket"] > 101'}
  - {claim: not measured, check: 'accuracy["again", "dense"] > 0'}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTH_RUNS_DIR", str(tmp_path / "runs"))
    path = tmp_path / "own.yaml"
    path.write_text(STUDY)
    return path


def _lth(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_study_runs_once_and_its_report_stays_the_same(study: Path, tmp_path: Path):
    shown = json.loads(_lth("study", "show", str(study), "--json"))["steps"]
    assert [shown[name]["points"] for name in ("imp", "again", "stable")] == [2, 2, 1]
    assert not (tmp_path / "runs").exists()
    told = _lth("study", "run", str(study), "-q")
    assert "FAILED: impossible" in told
    assert "not checked: not measured" in told
    folder = tmp_path / "runs" / "studies" / "own" / "quick"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert b"- `lth study run own profile=whole`; all of it\n" in before["report.md"]
    assert b"## Stability" in before["report.md"] and b"Left out here" not in before["report.md"]
    assert {"report.md", "study.json", "accuracy.csv", "stability.csv", "there.png"} <= before.keys()
    assert "nothing.png" not in before and b"Nothing" not in before["report.md"]
    shown = json.loads(_lth("study", "show", str(study), "--json"))["steps"]
    assert [(one["done"], one["steps"]) for one in shown.values()] == [(2, 0), (2, 0), (1, 0)]
    _lth("study", "run", str(study), "-q")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_mistake_in_the_last_step_stops_the_first(study: Path, tmp_path: Path):
    study.write_text(STUDY.replace("analysis.points: 3", "analysis.pionts: 3"))
    with pytest.raises(ConfigError, match=r"steps\.stable.*pionts"):
        CliRunner().invoke(app, ["study", "run", str(study)], catch_exceptions=False)
    assert not (tmp_path / "runs").exists()


DIET = """
about: easy examples
paper: none
claim: none
overrides: {dataset: digits, training.length: 6it, evaluation.train: false, threads: 1, pruning.rounds: 1}
steps:
  scorers: {command: train, sweep: {seed: [7, 8]}}
  scores:
    command: analyze
    from: [scorers]
    overrides: {analysis: examples, analysis.states: "[0@end]", analysis.grand: false}
  easy:
    command: train
    from: [scores]
    overrides: {dataset.subset: "{by: el2n, scores: {scores}, count: 100}"}
    next: {function: halves.until, at_least: 30}
profiles: {quick: {}}
tables:
  accuracy: {title: Accuracy, of: [easy], rows: dataset.subset.count, columns: kind}
"""
HALVES = """
def until(found, *, at_least):
    count = 100 // 2 ** len(found)
    return [f"dataset.subset.count={count}"] if count >= at_least else None
"""


def test_a_step_takes_the_answer_of_another_and_branches_by_a_function_of_ones_own(
    study: Path, tmp_path: Path
):
    study.write_text(DIET)
    (tmp_path / "halves.py").write_text(HALVES)
    shown = json.loads(_lth("study", "show", str(study), "--json"))["steps"]
    assert [shown[name]["points"] for name in ("scorers", "scores", "easy")] == [2, 1, 1]
    _lth("study", "run", str(study), "-q")
    report = (tmp_path / "runs/studies/own/quick/report.md").read_text()
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
    assert rows == ["count", "---", "100", "50"]
    assert "\nSeeds: scorers: 7, 8; easy: 0.\n" in report
    configs = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("*easy*/run.json"))]
    assert len(configs) == 2
    told = sorted((tmp_path / "runs").glob("*easy*/config.yaml"))[0].read_text()
    assert "analysis/examples-" in told


def test_points_that_ended_on_a_cluster_are_submitted_again_by_hand_alone(
    study: Path, monkeypatch: pytest.MonkeyPatch
):
    study.write_text(STUDY.replace("seed: [0, 1]", "optimizer.lr: [1e30]"))
    runner = Runner(make_plan(find(str(study), None), []), None, quiet=True)
    with pytest.raises(LthError, match="1 of 1 points failed"):
        runner.run(runner.check())
    Sweep.open(folder_of(runner.runs_dir, "own-quick-imp")).set_jobs({0: "7_0"})
    monkeypatch.setattr("lth_cli.launchers.slurm.job_states", lambda jobs: {"7_0": "COMPLETED"})
    with pytest.raises(LthError, match=r"1 of 1 points ended unfinished.*diverged.*submits them again"):
        runner.run(runner.check(), again=False)


def test_data_that_a_step_makes_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Checked and counted without `{step/}` as long as that run is not there."""
    monkeypatch.setenv("LTH_RUNS_DIR", str(tmp_path / "runs"))
    path = tmp_path / "made.yaml"
    path.write_text("""
about: data made by a step
paper: none
claim: none
overrides: {dataset: digits, training.length: 2it, evaluation.train: false, threads: 1}
steps:
  made: {command: train, overrides: {model: condensed, update: gradient_matching, update.epochs: 1}}
  pruned: {command: prune, from: [made], overrides: {dataset.condensed: "{made/}", pruning.rounds: 1, rewind.to: 0}}
  real: {command: rewind, from: [pruned], overrides: {dataset.condensed: "null"}}
profiles: {quick: {}}
""")
    shown = json.loads(_lth("study", "show", str(path), "--json"))["steps"]
    assert [one["trainings"] for one in shown.values()] == [1, 2, 1]
    _lth("study", "run", str(path), "-q")
    configs = [
        read_yaml(tmp_path / "runs" / f"made-quick-{name}" / "config.yaml") for name in ("pruned", "real")
    ]
    assert [config["dataset"]["condensed"] for config in configs] == [
        str(tmp_path / "runs" / "made-quick-made"),
        None,
    ]
