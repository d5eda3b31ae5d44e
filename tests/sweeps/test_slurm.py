"""Jobs of a real Slurm: one node on loopback, started for the test by `../shared/slurm/start_slurm.sh`."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from sweep_helpers import ROOT, outcome, wait_until

from lth_cli.config.errors import LthError
from lth_cli.launchers.slurm import job_states
from lth_cli.report.sweeps import status
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import find_sweep

SCRIPTS = ROOT.parent / "shared" / "slurm"
SLURM = ("launcher=slurm", "launcher.cpus=1", "launcher.memory=1G", "launcher.time=10min")


def reason_to_skip():
    if not (SCRIPTS / "start_slurm.sh").is_file():
        return f"there is no {SCRIPTS}/start_slurm.sh"
    programs = ("munged", "slurmctld", "slurmd", "sbatch")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return "Slurm's own processes need root here" if os.geteuid() else None


def start(folder):
    """Start Slurm in a folder; returns what went wrong, or None."""
    command = [SCRIPTS / "start_slurm.sh", folder]
    try:
        started = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "Slurm does not start within a minute"
    return None if "idle" in started.stdout else f"Slurm does not start: {started.stderr or started.stdout}"


@pytest.fixture(scope="module")
def slurm():
    """A running Slurm. On CI, where it is installed for this, anything in its way is a failure."""
    # not pytest's folder, which is closed to others: munge refuses that
    folder = Path(tempfile.mkdtemp(prefix="lth-slurm-"))
    folder.chmod(0o755)
    reason = reason_to_skip() or start(folder)
    try:
        if reason is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
                patch.setenv("PYTHONPATH", str(ROOT))
                yield
        elif os.environ.get("LTH_SLURM_REQUIRED"):
            pytest.fail(reason)
        else:
            pytest.skip(reason)
    finally:
        if (folder / "slurm.conf").exists():
            subprocess.run([SCRIPTS / "stop_slurm.sh", folder], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def has_trained(run):
    """Whether a resume point of the run is stored."""
    name = Run.open(run).info["id"]
    return any(name in file.read_text() for file in run.parent.glob(".store/*/segments.jsonl"))


def shown(lab, name):
    sweep = find_sweep(lab.runs, name)
    return status(sweep, job_states(point.job for point in sweep.points()))


def test_requeued_jobs_give_the_bytes_of_a_sweep_that_nobody_disturbed(lab, slurm, tmp_path, capsys):
    points = [
        *("name=s", "optimizer.lr=1e-3,2e-3,1e30"),
        *("training.length=1500it", "evaluation.every=500it", "checkpoint.every=50it"),
    ]
    lab.prune(*points, *SLURM, as_json=False)
    assert "3 points: " in capsys.readouterr().out
    jobs = {one.point.index: one.point.job for one in shown(lab, "s")}
    assert {job.split("_")[0] for job in jobs.values()} == {jobs[0].split("_")[0]}

    def stopped_midway(index, run, *command):
        wait_until((lab.runs / run / "run.json").exists, 90)
        wait_until(lambda: has_trained(lab.runs / run), 60)
        log = find_sweep(lab.runs, "s").log_path(index)
        # scancel tries again and again while a job is being requeued: its signal must not hit the next attempt
        with subprocess.Popen([*command, jobs[index]]) as process:
            wait_until(lambda: "stopped at step" in log.read_text(), 30)
            process.kill()

    stopped_midway(0, "s-lr_0.001", "scontrol", "requeue")  # Slurm's own doing
    stopped_midway(1, "s-lr_0.002", "scancel", "--signal=USR2")  # its warning, and then ours
    wait_until(lambda: not any(one.state in ("queued", "running") for one in shown(lab, "s")), 120)
    assert [one.state for one in shown(lab, "s")] == ["finished", "finished", "failed"]
    assert "diverged" in shown(lab, "s")[2].error

    alone = type(lab)(tmp_path / "alone")
    with pytest.raises(LthError, match="1 of 3 points failed"):
        alone.prune(*points)
    for run in ("s-lr_0.001", "s-lr_0.002"):
        assert outcome(lab.runs / run) == outcome(alone.runs / run)


def test_cancelled_and_submitted_again(lab, slurm):
    long = ("name=c", "training.length=10000it", *SLURM)  # not done before it is cancelled
    lab.prune(*long)
    assert lab.lth("cancel", "c").stdout == "Cancelled 1 job of sweep c.\n"
    wait_until(lambda: [one.state for one in shown(lab, "c")] == ["cancelled"])
    lab.prune(*long, "launcher.wait=true")
    assert [one.state for one in shown(lab, "c")] == ["finished"]


def test_what_slurm_refuses_is_told(lab, slurm):
    with pytest.raises(LthError, match=r"Slurm refuses the jobs: .*artition"):
        lab.prune("name=r", "seed=0,1", *SLURM, "launcher.partition=nowhere")


STUDY = """
about: masks after training
paper: none
claim: none
overrides: {dataset: digits, training.length: 24it, threads: 1, pruning.rounds: 1, device: cpu}
steps:
  imp: {command: prune, sweep: {seed: [0, 1]}}
  again: {command: rewind, from: [imp], overrides: {rounds: "1"}, sweep: {rewind.to: [3it]}}
  masks: {command: analyze, from: [imp], overrides: {analysis: masks}}
profiles: {quick: {}}
tables: {tickets: {title: Tickets, of: [imp, again], rows: step, columns: kind}}
"""


def test_a_study_goes_on_by_itself(lab, slurm, tmp_path):
    path = tmp_path / "after.yaml"
    path.write_text(STUDY)
    folder = lab.runs / "studies" / "after" / "quick"
    done = lab.lth("study", "run", str(path), *SLURM)
    assert "goes on with the study once they have ended" in done.stderr
    report = folder / "report.md"
    wait_until(lambda: "| again |" in report.read_text(), 240)
    assert [path.name for path in (lab.runs / "after-quick-imp-seed_0" / "analysis").glob("masks-*")]
