"""What learning from earlier runs costs and brings, and what each way of paying less for it saves.

Run: python benchmarks/distillation.py mnist --data-root FOLDER [--seeds 0 1 2] [--runs-dir runs]
     python benchmarks/distillation.py cifar10 --images FOLDER_OR_ARCHIVE
     python benchmarks/distillation.py tickets --data-root FOLDER

`mnist`: LeNet-300-100 taught by LeNet-300-100. `cifar10`: a ResNet on CIFAR-10 images taught by one of its kind that
was trained four times as long. All students of a seed are trained in this process in lockstep, 50 steps each in turn,
so that whatever else the machine does slows them alike; costs are CPU seconds without evaluation, as ratios to the
student without teachers. `tickets`: rounds of IMP with and without their dense network as teacher.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import lth, lth_json, made_on, mean_and_spread, write_result

from lth_cli.config.compose import load
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.teachers import with_teachers
from lth_cli.store.trajectories import TrajectoryStore
from lth_cli.training.engine import Engine
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.teaching import make_teaching

POOL = 8
ONE = ("distillation=kd", "distillation.teachers=[{pool}-seed_100]")
ALL = ("distillation=kd", "distillation.teachers=['sweep:{pool}']")
WAYS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "one teacher": ONE,
    "first 50 %": (*ONE, "distillation.end=0.5"),
    "first 20 %": (*ONE, "distillation.end=0.2"),
    "first 10 %": (*ONE, "distillation.end=0.1"),
    "every 5th step": (*ONE, "distillation.every=5"),
    "every 10th step": (*ONE, "distillation.every=10"),
    "cache, first student": (*ONE, "distillation.cache=true"),
    "mean squared error": (*ONE, "distillation.loss=mse"),
    "pool of 8, one at random": (*ALL, "distillation.sample=1"),
    "pool of 8, all": ALL,
}
# Of the same order and augmentation and other initial weights, trained after the others: it finds what they left.
NEXT = {"plain": (), "cache, next student": (*ONE, "distillation.cache=true", "seeds.init=1000")}


CHUNK = 50


@dataclass
class Student:
    """A training going on.

    Attributes:
        trainer: itself.
        seconds: CPU seconds so far, evaluations left out.
        accuracy: test accuracy by step.
    """

    trainer: Trainer
    seconds: float
    accuracy: dict[int, float] = field(default_factory=dict)

    def advance(self) -> None:
        """Train a chunk, then evaluate."""
        begun = time.process_time()
        to = min(self.trainer.step + CHUNK, self.trainer.trajectory.end)
        self.trainer.run(to, lambda: False, lambda *_: None)
        self.seconds += time.process_time() - begun
        self.accuracy[to] = self.trainer.evaluate("test")["accuracy"]

    @property
    def done(self) -> bool:
        """Whether it is at its end."""
        return self.trainer.step == self.trainer.trajectory.end


@dataclass(frozen=True)
class Trained:
    """A student at the end.

    Attributes:
        seconds: CPU seconds of its training.
        ratio: to that without teachers, trained beside it.
        accuracy: test accuracy by step.
    """

    seconds: float
    ratio: float
    accuracy: dict[int, float]

    @property
    def final(self) -> float:
        """Test accuracy at the end."""
        return self.accuracy[max(self.accuracy)]


def main() -> None:
    """Train what is asked for and write its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("mnist", "cifar10", "tickets"))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--length", help="of a student's training; default: mnist 4ep, cifar10 4ep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    if options.what == "tickets":
        _tickets(options)
    else:
        _ways(options)


def _setting(options: argparse.Namespace) -> tuple[str, ...]:
    shared = (f"threads={options.threads}", f"runs_dir={options.runs_dir}", "evaluation.train=false")
    if options.what != "cifar10":
        return (
            *shared,
            "dataset=mnist",
            "model=lenet_300_100",
            *([f"data.root={options.data_root}"] * bool(options.data_root)),
        )
    images = ("dataset=cifar10_images", f"dataset.path={options.images}", "dataset.subset.fraction=0.2")
    net = ("model=resnet20", "model.depth=8", "optimizer=sgd", "optimizer.lr=0.1", "schedule=linear")
    return (*shared, *images, *net, "training.batch_size=128", "precision=bf16")


def _ways(options: argparse.Namespace) -> None:
    setting, pool = _setting(options), f"pool-{options.what}"
    length = options.length or "4ep"
    longer = f"{4 * int(length.removesuffix('ep'))}ep" if options.what == "cifar10" else length
    seeds = ",".join(str(100 + number) for number in range(POOL))
    lth(
        "train",
        *setting,
        f"training.length={longer}",
        f"name={pool}",
        "-m",
        f"seed={seeds}",
        "-q",
        runs_dir=options.runs_dir,
    )
    students: dict[str, list[Trained]] = {way: [] for way in (*WAYS, *NEXT)}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for ways in (WAYS, NEXT):
                common = [*setting, f"training.length={length}", f"seed={seed}"]
                asked = {
                    way: [*common, *(text.format(pool=pool) for text in more)] for way, more in ways.items()
                }
                for way, found in _lockstep(asked, TrajectoryStore(Path(folder))).items():
                    if way not in NEXT or ways is NEXT:
                        students[way].append(found)
    _write(options, length, longer, students)


def _lockstep(ways: Mapping[str, Sequence[str]], store: TrajectoryStore) -> dict[str, Trained]:
    students = {way: _student(overrides, store) for way, overrides in ways.items()}
    order = list(students.values())
    while not order[0].done:
        for student in order:
            student.advance()
        order = [*order[1:], order[0]]
    for student in order:
        student.trainer.state()  # answers by step are on disk then
    plain = students["plain"].seconds
    return {
        way: Trained(student.seconds, student.seconds / plain, student.accuracy)
        for way, student in students.items()
    }


def _student(overrides: Sequence[str], store: TrajectoryStore) -> Student:
    config = load("train", overrides).config
    plan = with_teachers(make_plan(config))
    engine = Engine(store, "teachers", config.evaluation, "1h")
    for named in plan.teachers or ():
        named.provide(engine)
    dense, teaching, begun = plan.dense, None, time.process_time()
    if dense.distilled is not None:
        states = [engine.state(teacher.of.parent, teacher.of.step) for teacher in dense.distilled.teachers]
        teaching = make_teaching(dense, states, store, lambda identity: None, lambda: False)
    answering = time.process_time() - begun  # of a cache by example
    trainer = Trainer(dense, initial_state(dense, config.resolved_seeds["init"]), teaching=teaching)
    return Student(trainer, answering)


def _write(options: argparse.Namespace, length: str, longer: str, students: dict[str, list[Trained]]) -> None:
    ratio = {way: statistics.fmean(one.ratio for one in found) for way, found in students.items()}
    target = statistics.fmean(one.final for one in students["plain"])
    plain_steps = statistics.fmean(_steps_to(one, target) or max(one.accuracy) for one in students["plain"])
    seconds = statistics.fmean(one.seconds for one in students["plain"])
    lines = [
        f"# Distillation: {options.what}\n",
        made_on(options.seeds, options.threads),
        f"Students train {length}, their teachers {longer} from other seeds (100 to 107). Loss 0.1 x labels + 0.9 x "
        "KL at T = 4 unless named. Cost: CPU seconds of a training without evaluation, as a ratio to `plain`, mean "
        f"over seeds (`plain` took {seconds:.1f} s); removed: of the overhead of `one teacher`. Steps: to the mean "
        f"final test accuracy of `plain`, {100 * target:.2f} %, evaluated every {CHUNK} steps, as a share of what "
        "`plain` takes to it; students that never get there are counted.\n",
        "| way | cost | removed | test accuracy in % | steps to plain's accuracy |\n"
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    full = ratio["one teacher"] - 1
    for way, found in students.items():
        saves = way not in ("plain", "one teacher") and ratio[way] < ratio["one teacher"]
        removed = f"{100 * (1 - (ratio[way] - 1) / full):.0f} %" if saves else ""
        reached = [steps for one in found if (steps := _steps_to(one, target)) is not None]
        share = f"{statistics.fmean(reached) / plain_steps:.2f}" if reached else "never"
        missed = (
            f" ({len(found) - len(reached)} of {len(found)} never)"
            if reached and len(reached) < len(found)
            else ""
        )
        lines.append(
            f"| {way} | {ratio[way]:.2f}x | {removed} | "
            f"{mean_and_spread([one.final for one in found])} | {share}{missed} |"
        )
    write_result(f"distillation_{options.what}", "\n".join(lines) + "\n")


def _steps_to(one: Trained, target: float) -> int | None:
    """The first evaluated step of at least this accuracy."""
    return next((step for step, accuracy in sorted(one.accuracy.items()) if accuracy >= target), None)


def _tickets(options: argparse.Namespace) -> None:
    setting, length = _setting(options), options.length or "4ep"
    ways = {"plain": (), "taught by dense": ("distillation=kd", "distillation.teachers=[dense]")}
    runs = {
        way: [
            lth_json(
                "prune",
                "-q",
                *setting,
                f"training.length={length}",
                "pruning.rounds=20",
                f"seed={seed}",
                f"name=tickets-{'kd' if more else 'plain'}-seed_{seed}",
                *more,
                runs_dir=options.runs_dir,
            )
            for seed in options.seeds
        ]
        for way, more in ways.items()
    }
    lines = [
        "# Tickets with and without their dense network as teacher: LeNet-300-100 on MNIST\n",
        made_on(options.seeds, options.threads),
        f"Each training is {length}; rewound to step 0; masks of each way are its own. Taught: 0.1 x labels + 0.9 x "
        "KL at T = 4 from the dense network of round 0. Test accuracy in %, mean ± standard deviation.\n",
        f"| round | density | {' | '.join(ways)} |\n| ---: | ---: |{' ---: |' * len(ways)}",
    ]
    for index, row in enumerate(runs["plain"][0]["results"]):
        cells = [
            mean_and_spread([run["results"][index]["test_accuracy"] for run in runs[way]]) for way in ways
        ]
        lines.append(f"| {row['round']} | {100 * row['density']:.2f} % | {' | '.join(cells)} |")
    write_result("distillation_tickets", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
