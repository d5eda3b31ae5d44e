"""What the fault tests and `benchmarks/soak` share: commands, the process that runs them, and what must be equal."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ZYGOTE = Path(__file__).with_name("zygote.py")
CHECKPOINT_EVERY = 5

# The only fields that may differ between a run that was broken and one that was not: times, hosts, and checksums
# over files that hold times.
TIME_AND_HOST_FIELDS = {
    "run.json": (
        "id",
        "created",
        "finished",
        "command",
        "hardware",
        "versions",
        "git_commit",
        "files",
        "checksum",
        "source",  # id and path of another run
    ),
    "summary.json": ("seconds", "files", "checksum"),
    "metrics.jsonl": ("seconds", "check"),
    "results.csv": ("seconds",),
    "result.json": ("finished", "checksum"),
}
# Nothing of a result: locks, what a killed process was about to delete, and who trained when.
_NO_RESULT = ("segments.jsonl", "resume.safetensors")

_TINY = (
    "name=run",
    "runs_dir=runs",
    "device=cpu",
    "threads=1",
    "model=mlp",
    "model.hidden=[6]",
    "training.length=24it",
    "training.batch_size=32",
    "optimizer=sgd",
    "evaluation.every=8it",
    f"checkpoint.every={CHECKPOINT_EVERY}it",
)


@dataclass(frozen=True)
class Command:
    """A command line, and those that must have finished before it.

    Attributes:
        arguments: as typed after `lth`.
        before: commands whose runs it needs.
    """

    arguments: tuple[str, ...]
    before: tuple[Command, ...] = ()

    def with_(self, *overrides: str) -> Command:
        """The same with further overrides."""
        return Command((*self.arguments, *overrides), self.before)


TRAIN = Command(("train", *_TINY))
PRUNE = Command(("prune", *_TINY, "pruning.rounds=2", "rewind.to=4it", "controls.kinds=[reinit]"))
REWIND = Command(
    (
        "rewind",
        "run",
        "runs_dir=runs",
        "name=again",
        "rewind.to=8it",
        "control=reinit",
        f"checkpoint.every={CHECKPOINT_EVERY}it",  # how often to store is no part of what a run hands on
    ),
    before=(PRUNE,),
)
DISTIL = Command(
    (
        *PRUNE.arguments,
        "name=student",
        "distillation=kd",
        "distillation.teachers=[run:0@14it,dense,previous]",  # step 14 is nowhere stored: it is trained to
        "distillation.sample=2",
        "distillation.every=2",
        "distillation.cache=true",
        "dataset.augment.flip=true",  # so that answers are kept by step
    ),
    before=(PRUNE,),
)
ANALYZE = Command(
    (
        "analyze",
        "run",
        "runs_dir=runs",
        "analysis=connectivity",
        "analysis.states=[0@14it,1@end,2@end]",  # step 14 is nowhere stored: it is trained to
        "analysis.points=3",
        f"checkpoint.every={CHECKPOINT_EVERY}it",
    ),
    before=(PRUNE,),
)


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        code: exit code; negative for a signal.
        output: what it printed, standard output and error together.
        seconds: how long it took.
        calls: every call that changed the disk below `runs`, when asked for.
    """

    code: int
    output: str
    seconds: float
    calls: list[str] = field(default_factory=list)


class Zygote:
    """The warm process that runs commands in forked children; see `zygote.py`."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LTH_RUNS_DIR": "runs"}
        self._process = subprocess.Popen(
            [sys.executable, str(ZYGOTE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, folder: Path, command: Command, **fault: Any) -> Outcome:
        """Run a command in `folder`, with faults.

        Args:
            folder: where it runs; its runs land in `folder/runs`.
            command: what is run.
            fault: `signals` ([seconds, name] pairs); `kill_at`, `fail_at`, `errno`, `stays`, `delete_at` (see
                `zygote.Disk`),
                `calls` (tell them), `steps` (file that tells every training step), `code` (Python run before),
                `env`, `figures` (draw them; left out otherwise, for speed), `timeout`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "output.txt"
        output.unlink(missing_ok=True)
        request = {
            "cwd": str(folder),
            "output": str(output),
            "arguments": list(command.arguments),
            **fault,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        text = output.read_text(errors="replace") if output.exists() else ""
        return Outcome(answer["code"], text, answer["seconds"], _read_calls(folder / "calls.json"))

    def finish(self, folder: Path, command: Command, **fault: Any) -> Outcome:
        """Run a command that must succeed."""
        outcome = self.run(folder, command, **fault)
        assert outcome.code == 0, f"exit {outcome.code}: {outcome.output[-3000:]}"
        return outcome

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _read_calls(path: Path) -> list[str]:
    calls: list[str] = json.loads(path.read_text()) if path.exists() else []
    path.unlink(missing_ok=True)
    return calls


@contextmanager
def zygote() -> Iterator[Zygote]:
    """A zygote for the length of a block."""
    process = Zygote()
    try:
        yield process
    finally:
        process.close()


def results_of(folder: Path) -> dict[str, str]:
    """Digest of every file of the runs in a folder by path, times and hosts left out."""
    root = folder / "runs"
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") and part != ".store" for part in path.relative_to(root).parts)
        if path.is_dir() or hidden or path.name in _NO_RESULT or ".lock" in path.name:
            continue
        found[name] = hashlib.sha256(_timeless(path)).hexdigest()
    return found


def _timeless(path: Path) -> bytes:
    content = path.read_bytes()
    fields = TIME_AND_HOST_FIELDS.get(path.name, ())
    if not fields:
        return content

    def without(value: dict[str, Any]) -> str:
        return json.dumps({key: inner for key, inner in value.items() if key not in fields})

    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        return "\n".join(map(without, rows)).encode()
    if path.suffix == ".jsonl":
        lines = sorted(without(json.loads(line)) for line in content.splitlines())
        return "\n".join(lines).encode()
    return without(json.loads(content)).encode()


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Paths of files that are not the same, or there once only."""
    return [path for path in sorted(ours.keys() | theirs.keys()) if ours.get(path) != theirs.get(path)]


def leftovers(folder: Path) -> list[str]:
    """Temporary files that nobody deleted. A run that died before it had a name is left to `lth gc`."""
    return [
        str(path.relative_to(folder))
        for path in (folder / "runs").glob("*/**/.tmp-*")
        if not path.relative_to(folder / "runs").parts[0].startswith(".tmp-")
    ]


def faults_of(folder: Path) -> list[str]:
    """What `lth verify` would report of the runs in a folder."""
    from lth_cli.store.runs import list_runs
    from lth_cli.store.trajectories import TrajectoryStore
    from lth_cli.store.verify import verify_run, verify_store

    runs, errors = list_runs(folder / "runs")
    faults = [fault for run in runs for fault in verify_run(run)]
    faults += verify_store(TrajectoryStore(folder / "runs" / ".store"))
    return [*map(str, errors), *(f"{fault.path}: {fault.message}" for fault in faults)]


def prepare(zygote: Zygote, folder: Path, command: Command) -> None:
    """Run what must have finished before a command."""
    for earlier in command.before:
        prepare(zygote, folder, earlier)
        zygote.finish(folder, earlier)


def reference(zygote: Zygote, folder: Path, command: Command) -> tuple[dict[str, str], Outcome]:
    """The results of a command that nothing disturbs, and how it went."""
    prepare(zygote, folder, command)
    outcome = zygote.finish(folder, command, calls=True)
    assert faults_of(folder) == []
    return results_of(folder), outcome


@dataclass
class Kills:
    """What a series of kills did.

    Attributes:
        kills: processes killed.
        runs: runs finished in spite of them.
        retrained: most steps that one kill cost.
        problems: what was not as promised.
    """

    kills: int = 0
    runs: int = 0
    retrained: int = 0
    problems: list[str] = field(default_factory=list)


def kill_and_finish(
    zygote: Zygote,
    folder: Path,
    command: Command,
    expected: dict[str, str],
    moments: Callable[[], dict[str, Any]],
    kills: int,
) -> Kills:
    """Kill a command again and again until `kills` are done, finishing and comparing run after run.

    Args:
        zygote: runs it.
        folder: each run gets a folder below.
        command: what is run.
        expected: its undisturbed results.
        moments: the next fault to try, as for `Zygote.run`.
        kills: how many.
    """
    done = Kills()
    while done.kills < kills:
        place = folder / f"{done.runs:04d}"
        prepare(zygote, place, command)
        executed: list[list[str]] = []
        for _ in range(200):
            log = place / f"steps-{len(executed)}.txt"
            moment = moments() if done.kills < kills else {}
            outcome = zygote.run(place, command, steps=str(log), **moment)
            executed.append(log.read_text().split("\n")[:-1] if log.exists() else [])
            if outcome.code == 0:
                break
            if outcome.code != -9:
                done.problems.append(f"{place}: exit {outcome.code}: {outcome.output[-500:]}")
                break
            done.kills += 1
        done.runs += 1
        done.retrained = max(done.retrained, _most_repeated(executed))
        done.problems += [f"{place}: {path} differs" for path in differences(results_of(place), expected)]
        done.problems += [f"{place}: {fault}" for fault in faults_of(place)]
        done.problems += [f"{place}: {path} is left over" for path in leftovers(place)]
    return done


def _most_repeated(executed: list[list[str]]) -> int:
    """The most steps of one process that a later one had to execute again."""
    later: Counter[str] = Counter()
    most = 0
    for steps in reversed(executed):
        most = max(most, sum(1 for step in set(steps) if later[step]))
        later.update(set(steps))
    return most


def random_moments(longest: float, calls: int, seed: int) -> Callable[[], dict[str, Any]]:
    """Kills at random times, and at random calls that change the disk, by turns."""
    generator = random.Random(seed)

    def moment() -> dict[str, Any]:
        if generator.random() < 0.5:
            return {"signals": [[generator.uniform(0.0, longest), "SIGKILL"]]}
        return {"kill_at": generator.randint(1, calls)}

    return moment
