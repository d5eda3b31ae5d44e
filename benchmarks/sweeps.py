"""Sweeps: planning 200 points, local workers against one after another, and a Slurm whose jobs are disturbed.

python benchmarks/sweeps.py planning                  a minute
python benchmarks/sweeps.py local FOLDER              about 5 minutes on two cores
python benchmarks/sweeps.py seeds FOLDER              about 10 minutes on two cores
python benchmarks/sweeps.py slurm FOLDER              about 4 minutes; needs slurm-wlm, munge, root and ../shared/slurm
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from common import lth, lth_json, made_on, write_result

COMMON = ("dataset=digits", "model=lenet_300_100", "threads=1", "device=cpu", "evaluation.every=10ep")
EIGHT = (*COMMON, "training.length=40ep", "pruning.rounds=2", "seed=0,1", "rewind.to=0,1ep,2ep,4ep")
SIX = (
    *COMMON,
    *("training.length=100ep", "pruning.rounds=1", "checkpoint.every=200it"),
    "optimizer.lr=1e-3,2e-3,3e-3,4e-3,5e-3,1e30",
)


def planning() -> None:
    """How long 200 points take from the command to the first launch, which is a mistake in every point."""
    from lth_cli.config import compose
    from lth_cli.config.points import load_all

    swept = ["seed=range(50)", "model=lenet_300_100,conv2", "rewind.to=0,20it"]
    begun = time.perf_counter()
    combinations = compose.expand([*COMMON, *swept])
    found = load_all("prune", combinations)
    composed = time.perf_counter() - begun
    begun = time.perf_counter()
    alone = [compose.load("prune", combination) for combination in combinations[:20]]
    each = (time.perf_counter() - begun) / len(alone)
    assert [point.values for point in alone] == [getattr(point, "values", None) for point in found[:20]]
    # All 200 points are planned, and the one mistake, a rewind point beyond the end, is found in half of them.
    begun, before = time.perf_counter(), os.times()
    refused = subprocess.run(
        [
            *(sys.executable, "-c", "from lth_cli.cli.main import main; main()", "prune", "-m"),
            *(*COMMON, "training.length=1ep", *swept[:2], "rewind.to=0,99ep"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    whole, after = time.perf_counter() - begun, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    assert refused.returncode == 2, refused.stderr
    write_result(
        "sweep_planning",
        f"# Planning a sweep of {len(combinations)} points\n\n{made_on([0], 1)}\n"
        "| what | seconds |\n| --- | --- |\n"
        f"| compose and validate 200 points together | {composed:.2f} |\n"
        f"| the same one by one (20 measured, times ten) | {200 * each:.2f} |\n"
        f"| the whole command, data and models tried, one mistake told, nothing made | {whole:.2f} "
        f"({busy:.2f} of a processor; half of it starts torch) |\n\n"
        f"What it says:\n\n```\n{refused.stderr.strip()}\n```\n\n{_table_of_200()}",
    )


def _table_of_200() -> str:
    """How the table of so many points looks in a terminal of 80 columns: its first and last lines."""
    import tempfile

    from lth_cli.report.sweeps import print_sweep, status
    from lth_cli.store.sweeps import Sweep, SweepPoint

    os.environ["COLUMNS"] = "80"
    with tempfile.TemporaryDirectory() as folder:
        points = [
            SweepPoint(i, [f"seed={i // 4}", f"model={m}", f"rewind.to={r}"], f"prune-{i}", 13, {})
            for i, (m, r) in enumerate(
                [("lenet_300_100", 0), ("conv2", 0), ("conv2", "20it"), ("mlp", 0)] * 50
            )
        ]
        sweep = Sweep.write(
            Path(folder), "s", points, kind="prune", command=["lth"], launcher={"kind": "serial"}
        )
        printed = io.StringIO()
        with redirect_stdout(printed):
            print_sweep(sweep, status(sweep))
    lines = printed.getvalue().rstrip().splitlines()[:-1]  # without the path of a temporary folder
    return "\n".join(["The table, a line a point:", "", "```", *lines[:6], "...", *lines[-4:], "```", ""])


def local(folder: Path) -> None:
    """Eight points that share two dense trainings: two workers, one after another, eight separate commands."""
    rows = []
    for label, points, more in (
        ("2 workers", EIGHT, ("launcher=local", "launcher.workers=2")),
        ("one after another", EIGHT, ()),
    ):
        runs_dir = folder / label.replace(" ", "_")
        begun = time.perf_counter()
        runs = lth_json("prune", "-m", *points, "name=s", *more, runs_dir=runs_dir)
        rows.append((label, time.perf_counter() - begun, runs))
    begun = time.perf_counter()
    runs = []
    for seed in (0, 1):
        for to in ("0", "1ep", "2ep", "4ep"):
            point = (*EIGHT[:-2], f"seed={seed}", f"rewind.to={to}", f"name=s-seed_{seed}-to_{to}")
            runs.append(lth_json("prune", *point, runs_dir=folder / f"alone_{seed}_{to}"))
    rows.append(("8 separate commands, each with a store of its own", time.perf_counter() - begun, runs))
    results = [[run["results"] for run in found] for _, _, found in rows]
    same = all(_numbers(result) == _numbers(results[0]) for result in results)
    write_result(
        "sweep_local",
        f"# A sweep of 8 points, started in three ways\n\n{made_on([0, 1], 1)}\n"
        "Two seeds by four rewind points, two pruning rounds; the four points of a seed share its dense training.\n\n"
        "| how | wall clock, s | steps trained |\n| --- | --- | --- |\n"
        + "".join(
            f"| {label} | {seconds:.1f} | {sum(run['steps_trained'] for run in found):,} |\n"
            for label, seconds, found in rows
        )
        + f"\nThe same densities, losses and accuracies in all three: {'yes' if same else 'NO'}.\n",
    )


def seeds(folder: Path) -> None:
    """Twelve rounds for several seeds: a command each, one after another, and sweeps."""
    shared = (
        "dataset=digits",
        "threads=1",
        "device=cpu",
        "pruning.rounds=12",
        "evaluation.train=false",
        "-q",
    )
    lines, digests = [], []
    for count in (5, 8):
        values = [f"seed={seed}" for seed in range(count)]
        begun = time.perf_counter()
        for seed, value in enumerate(values):
            lth("prune", *shared, value, f"name=s-seed_{seed}", runs_dir=folder / f"{count}_alone")
        alone = time.perf_counter() - begun
        lines.append(f"| {count} | a command each | {alone:.0f} | 1 |\n")
        for workers in (1, 2):
            more = ("launcher=local", f"launcher.workers={workers}") if workers > 1 else ()
            runs_dir = folder / f"{count}_{workers}"
            begun = time.perf_counter()
            lth("prune", "-m", *shared, f"seed=range({count})", "name=s", *more, runs_dir=runs_dir)
            took = time.perf_counter() - begun
            lines.append(f"| {count} | one sweep, {workers} at a time | {took:.0f} | {alone / took:.2f} |\n")
            digests.append(_masks(folder / f"{count}_alone") == _masks(runs_dir))
    write_result(
        "sweep_seeds",
        f"# Several seeds of one pruning\n\n{made_on(range(8), 1)}\n"
        "LeNet-300-100 on digits, 12 rounds of 960 steps; whole processes, starting included.\n\n"
        "| seeds | how | seconds | times as fast |\n| ---: | --- | ---: | ---: |\n"
        + "".join(lines)
        + f"\nThe same masks, byte by byte: {'yes' if all(digests) else 'NO'}.\n",
    )


def _masks(runs_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(runs_dir)): path.read_bytes()
        for path in runs_dir.glob("*/round_*/mask.safetensors")
    }


def _numbers(runs: list[list[dict[str, float]]]) -> list[list[dict[str, float]]]:
    """Results without what depends on who trained first."""
    ours = ("steps_trained", "steps_reused", "seconds")
    return [[{k: v for k, v in row.items() if k not in ours} for row in rows] for rows in runs]


def slurm(folder: Path) -> None:
    """Six points on a one-node Slurm, two disturbed midway, two failing, against the same sweep run here."""
    scripts = Path(__file__).parents[2] / "shared" / "slurm"
    subprocess.run([scripts / "start_slurm.sh", folder / "slurm"], check=True, stdout=sys.stderr)
    os.environ["SLURM_CONF"] = str(folder / "slurm" / "slurm.conf")
    try:
        begun = time.perf_counter()
        limits = ("launcher.cpus=1", "launcher.memory=1G", "launcher.time=30min")
        lth("prune", "-m", *SIX, "name=s", "launcher=slurm", *limits, runs_dir=folder / "cluster")
        returned = time.perf_counter() - begun
        _disturb(folder / "cluster", 0, "scontrol", "requeue")
        _disturb(folder / "cluster", 3, "scancel", "--signal=USR2")
        while any(point["state"] in ("queued", "running") for point in _points(folder / "cluster")):
            time.sleep(1)
        whole = time.perf_counter() - begun
    finally:
        subprocess.run([scripts / "stop_slurm.sh", folder / "slurm"], check=False)
    subprocess.run(
        [sys.executable, "-c", "from lth_cli.cli.main import main; main()", "prune", "-m", *SIX, "name=s"],
        env={**os.environ, "LTH_RUNS_DIR": str(folder / "here")},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    lines = []
    for there, here in zip(_points(folder / "cluster"), _points(folder / "here"), strict=True):
        finished = there["state"] == here["state"] == "finished"
        same = finished and _digest(Path(there["path"])) == _digest(Path(here["path"]))
        log = (folder / "cluster" / ".sweeps" / "s" / "logs" / f"{there['index']:04d}.log").read_text()
        stopped = [line.split(";")[0][5:] for line in log.splitlines() if "stopped at step" in line]
        compared = "" if there["state"] == here["state"] == "failed" else "yes" if same else "NO"
        disturbed = stopped[0] if stopped else ""
        lines.append(
            f"| {there['run']} | {there['state']} | {disturbed} | {compared} | {there['error'] or ''} |"
        )
    write_result(
        "sweep_slurm",
        f"# Six points on a one-node Slurm, disturbed\n\n{made_on([0], 1)}\n"
        f"The command returned after {returned:.1f} s, the last job ended after {whole:.1f} s. Point 0 was requeued by "
        "`scontrol requeue`, point 3 got the signal of time running out; both went on from their last state. "
        "Compared byte by byte: masks, weights, and results.csv but for its seconds.\n\n"
        "| run | state | disturbed | same bytes as run here, one after another | error |\n"
        "| --- | --- | --- | --- | --- |\n" + "\n".join(lines) + "\n",
    )


def _points(runs_dir: Path) -> list[dict[str, object]]:
    return json.loads(lth("ls", "--sweep", "s", "--json", runs_dir=runs_dir))["points"]


def _disturb(runs_dir: Path, index: int, *command: str) -> None:
    """Hit the job of a point once it has stored a state midway."""
    point = _points(runs_dir)[index]
    run = Path(str(point["path"])) / "run.json"
    while not run.exists() or not any(
        json.loads(run.read_text())["id"] in file.read_text()
        for file in runs_dir.glob(".store/*/segments.jsonl")
    ):
        time.sleep(0.1)
    log = runs_dir / ".sweeps" / "s" / "logs" / f"{index:04d}.log"
    # scancel tries again and again while a job is being requeued: its signal must not hit the next attempt
    with subprocess.Popen([*command, str(point["job"])]) as process:
        while "stopped at step" not in log.read_text():
            time.sleep(0.1)
        process.kill()


def _digest(run: Path) -> str:
    """Everything of a run that does not depend on the clock."""
    found = hashlib.sha256()
    for path in sorted(run.rglob("*.safetensors")):
        found.update(path.relative_to(run).as_posix().encode() + path.read_bytes())
    table = run / "results.csv"
    if table.exists():
        with table.open() as file:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        found.update(json.dumps(rows).encode())
    return found.hexdigest()


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("planning", "local", "seeds", "slurm"))
    parser.add_argument(
        "folder", type=Path, nargs="?", help="new folder for the runs; slurm: open to all users"
    )
    arguments = parser.parse_args()
    if arguments.what == "planning":
        planning()
        return
    if arguments.folder is None:
        parser.error(f"{arguments.what} needs a folder")
    arguments.folder.mkdir(parents=True, mode=0o755)
    {"local": local, "seeds": seeds, "slurm": slurm}[arguments.what](arguments.folder.resolve())


if __name__ == "__main__":
    main()
