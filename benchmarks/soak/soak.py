"""The fault tests of `tests/faults`, many times over: kills, failing disks, damaged files, malformed requests, and the
shared store deleted beside commands that work.

Run: python benchmarks/soak/soak.py [--kills 500] [--writes 200] [--damages 200] [--requests 1000]
    [--minutes 3] [--seed 0]

Every kill is of `lth prune`, `train`, `rewind` or `analyze`, at a random time or a random call that changes the disk;
the command is then repeated until it finishes, and every mask, state, metric line and result compared with those of an
undisturbed run. The result is kept in benchmarks/results/soak.md.
"""

# ruff: noqa: E402 - the fault tests are no package: their folder is put on the path first

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests" / "faults")]

import damage
import harness
import malformed
from common import made_on, write_result
from harness import ANALYZE, DISTIL, PRUNE, REWIND, TRAIN, Command, Zygote
from hypothesis import HealthCheck, Phase, given, seed, settings

VERIFY = Command(("verify",))
GC = Command(("gc", "--yes"))
LS = Command(("ls",))
_MOST_SHOWN = 20


def kills(zygote: Zygote, folder: Path, count: int, number: int) -> tuple[str, list[str]]:
    """Kill and finish, of each command its share."""
    problems: list[str] = []
    lines = []
    shares = (
        ("prune", PRUNE, 0.5),
        ("train", TRAIN, 0.2),
        ("rewind", REWIND, 0.15),
        ("analyze", ANALYZE, 0.15),
    )
    for name, command, share in shares:
        expected, calm = harness.reference(zygote, folder / f"calm-{name}", command)
        moments = harness.random_moments(calm.seconds, len(calm.calls), number)
        wanted, runs, most = max(1, round(count * share)), 0, 0
        done = 0
        while done < wanted:
            place = folder / f"{name}-{runs}"
            found = harness.kill_and_finish(
                zygote, place, command, expected, moments, kills=min(10, wanted - done)
            )
            done, runs = done + found.kills, runs + found.runs
            most = max(most, found.retrained)
            problems += found.problems
            shutil.rmtree(place)
        if most > harness.CHECKPOINT_EVERY:
            problems.append(f"{name}: a kill cost {most} steps")
        lines.append(
            f"{done} kills of `lth {name}` in {runs} runs; a kill cost at most {most} of the "
            f"{harness.CHECKPOINT_EVERY} steps between checkpoints"
        )
    return "; ".join(lines), problems


def writes(zygote: Zygote, folder: Path, count: int, number: int) -> tuple[str, list[str]]:
    """Fail at a random call that changes the disk, once or from then on, and repeat."""
    generator = random.Random(number)
    expected, calm = harness.reference(zygote, folder / "calm", PRUNE)
    problems = []
    codes: Counter[str] = Counter()
    for _ in range(count):
        at, code = (
            generator.randint(1, len(calm.calls)),
            generator.choice(["ENOSPC", "EROFS", "EIO", "EDQUOT"]),
        )
        place = folder / "broken"
        broken = zygote.run(place, PRUNE, fail_at=at, errno=code, stays=generator.random() < 0.7)
        what = f"{code} at {at} ({calm.calls[at - 1]})"
        if broken.code not in (0, 1) or "Traceback" in broken.output or "fault in lth" in broken.output:
            problems.append(f"{what}: exit {broken.code}: {broken.output[-300:]}")
        again = zygote.run(place, PRUNE)
        if again.code:
            problems.append(f"{what}: repeated: exit {again.code}: {again.output[-300:]}")
        wrong = [*harness.differences(harness.results_of(place), expected), *harness.faults_of(place)]
        problems += [f"{what}: {path}" for path in wrong]
        codes[code] += 1
        shutil.rmtree(place)
    return ", ".join(f"{many} x {code}" for code, many in sorted(codes.items())), problems


def damages(zygote: Zygote, folder: Path, count: int, number: int) -> tuple[str, list[str]]:
    """Damage a file of a finished run; it must be named, and what reads the store must never use it."""
    generator = random.Random(number)
    finished = folder / "finished"
    expected, _ = harness.reference(zygote, finished, PRUNE)
    problems = []
    kinds: Counter[str] = Counter()
    cases = [(pattern, kind) for pattern, every in damage.KINDS.items() for kind in every]
    for turn in range(count):
        pattern, kind = cases[turn % len(cases)] if turn < len(cases) else generator.choice(cases)
        place = damage.copy_runs(finished, folder / "damaged")
        path = generator.choice(damage.candidates(place, pattern))
        kind(path, generator)
        what = f"{kind.__name__} of {path.relative_to(place)}"
        told = zygote.run(place, VERIFY)
        if told.code != 1 or f"{path.relative_to(place)}: " not in told.output or "Traceback" in told.output:
            problems.append(f"{what}: exit {told.code}: {told.output[-300:]}")
        shutil.rmtree(place / "runs/run")
        again = zygote.run(place, PRUNE)
        wrong = harness.differences(harness.results_of(place), expected)
        # how many steps were reused is told in these
        told_there = (".damaged", "results.csv", "summary.json", "trajectory.json")
        problems += [f"{what}: {name} differs" for name in wrong if not name.endswith(told_there)]
        if again.code or (place / "executed").exists():
            problems.append(f"{what}: exit {again.code}: {again.output[-300:]}")
        kinds[kind.__name__] += 1
        shutil.rmtree(place)
    return ", ".join(f"{many} x {kind}" for kind, many in sorted(kinds.items())), problems


def requests(_: Zygote, folder: Path, count: int, number: int) -> tuple[str, list[str]]:
    """Malformed requests of every kind."""
    problems: list[str] = []
    codes: Counter[int] = Counter()
    each = -(-count // len(malformed.KINDS))

    def ask(request: malformed.Request) -> None:
        answer = malformed.ask(request)
        codes[answer.code] += 1
        problem = malformed.problem(request, answer)
        if problem is not None:
            problems.append(f"{request.arguments} {request.files}: {problem}")

    for strategy in malformed.KINDS.values():
        check = given(strategy)(ask)
        check = settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(check)
        seed(number)(check)()
    exits = ", ".join(f"{many} exit {code}" for code, many in sorted(codes.items()))
    return f"{sum(codes.values())} of {len(malformed.KINDS)} kinds: {exits}", problems


def deletions(zygote: Zygote, folder: Path, minutes: int, number: int) -> tuple[str, list[str]]:
    """Delete the shared store at random times beside commands that train, and others that look after it."""
    generator = random.Random(number)
    commands = {"prune": PRUNE, "train": TRAIN, "rewind": REWIND, "distil": DISTIL, "analyze": ANALYZE}
    calm = {
        name: harness.reference(zygote, folder / f"calm-{name}", one)[0] for name, one in commands.items()
    }
    problems: list[str] = []
    ends: Counter[str] = Counter()
    deleted, over = 0, threading.Event()
    place = folder / "none-yet"

    def delete() -> None:
        nonlocal deleted
        while not over.wait(random.uniform(0.05, 1.0)):
            store = place / "runs" / ".store"
            deleted += store.is_dir()
            subprocess.run(
                ["rm", "-rf", str(store)], stderr=subprocess.DEVNULL, check=False
            )  # it is filled again

    def look_after() -> None:
        with harness.zygote() as other:
            while not over.is_set():
                for name, command in (("verify", VERIFY), ("gc", GC), ("ls", LS)):
                    if (runs := place / "runs").is_dir():
                        seen = other.run(folder / "beside", command, env={"LTH_RUNS_DIR": str(runs)})
                        ends[f"{name} exit {seen.code}"] += 1
                        if seen.code:
                            problems.append(f"{name}: exit {seen.code}: {seen.output[-300:]}")

    until = time.monotonic() + 60 * minutes
    threads = [threading.Thread(target=work) for work in (delete, look_after)]
    while time.monotonic() < until:
        name = generator.choice(list(commands))
        place = folder / f"{sum(ends.values()):06d}-{name}"  # the one before may still be looked at
        harness.prepare(zygote, place, commands[name])
        for thread in threads:
            if thread.ident is None:  # once there is something to delete
                thread.start()
        outcome = zygote.run(place, commands[name])
        ends[f"{name} exit {outcome.code}"] += 1
        if outcome.code:
            problems.append(f"{name}: exit {outcome.code}: {outcome.output[-300:]}")
            continue
        found = harness.results_of(place)
        wrong = harness.differences(found, calm[name])
        # the store is what was deleted, and how much was reused is told in the others
        told_there = ("results.csv", "summary.json", "result.json")
        problems += [
            f"{name}: {path} differs"
            for path in wrong
            if not path.startswith(".store") and not path.endswith(told_there)
        ]
    over.set()
    for thread in threads:
        thread.join()
    exits = ", ".join(f"{many} x {end}" for end, many in sorted(ends.items()))
    return f"store deleted {deleted} times beside {sum(ends.values())} commands: {exits}", problems


def main() -> None:
    """Run every part and write the result; exit 1 when anything is not as promised."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("kills", 500),
        ("writes", 200),
        ("damages", 200),
        ("requests", 1000),
        ("minutes", 3),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    given_ = parser.parse_args()
    parts: list[tuple[str, Callable[[Zygote, Path, int, int], tuple[str, list[str]]], int]] = [
        ("kills", kills, given_.kills),
        ("failing writes", writes, given_.writes),
        ("damaged files", damages, given_.damages),
        ("malformed requests", requests, given_.requests),
        ("deleted store (minutes)", deletions, given_.minutes),
    ]
    rows, every = [], []
    with tempfile.TemporaryDirectory() as folder, harness.zygote() as zygote:
        for name, part, count in parts:
            if not count:
                continue
            begun = time.monotonic()
            text, problems = part(zygote, Path(folder, name.replace(" ", "-")), count, given_.seed)
            minutes = (time.monotonic() - begun) / 60
            rows.append(f"| {name} | {count} | {len(problems)} | {minutes:.1f} | {text} |")
            every += [f"{name}: {problem}" for problem in problems]
            print(rows[-1], flush=True)
    shown = "\n".join(f"- {problem}" for problem in every[:_MOST_SHOWN])
    write_result(
        "soak",
        "# Faults, many times over\n\n"
        + made_on([given_.seed], threads=1).replace("benchmarks/soak.py", "benchmarks/soak/soak.py")
        + "\n| fault | times | not as promised | minutes | |\n| --- | ---: | ---: | ---: | --- |\n"
        + "\n".join(rows)
        + ("\n\nNot as promised:\n\n" + shown if every else "")
        + "\n",
    )
    sys.exit(1 if every else 0)


if __name__ == "__main__":
    main()
