"""What a GPU shows: the same results as the CPU, the same bytes again, speed beside bare loops, memory, real tickets.

Run: python benchmarks/gpu.py [--minutes 8] [--images FOLDER_OR_ARCHIVE] [--open-lth FOLDER] [--parts alike speed ...]

Parts come in order of worth, each in a process of its own with a limit of its own; what a part found before its limit
counts. Without a GPU the same parts run in small on the CPU, to show that they run: such numbers mean nothing else.
--images is CIFAR-10 as train/<class>/<image> and test/<class>/<image>, needed by `tickets` and `peer`; --open-lth is a
checkout of facebookresearch/open_lth, needed by `peer`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import lth as command
from common import made_on, mean_and_spread, random_images, write_result

import lth_cli as lth
from lth_cli.config.compose import load
from lth_cli.data.source import Arrays
from lth_cli.experiments.plan import make_plan
from lth_cli.pruning.controls import control_masks
from lth_cli.pruning.mask import everything
from lth_cli.store.tensors import content_digest
from lth_cli.training import optimizers
from lth_cli.training.evaluate import answer
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.trajectory import Trajectory

THERE = torch.cuda.is_available()
DEVICE = "cuda" if THERE else "cpu"


@dataclass(frozen=True)
class Part:
    """One thing to show.

    Attributes:
        title: of its table.
        note: what the table says and how it was made.
        limit: seconds.
        work: yields the rows, cells by heading.
    """

    title: str
    note: str
    limit: int
    work: Callable[[argparse.Namespace], Iterator[dict[str, str]]]


# --- The same on CPU and GPU -------------------------------------------------------------------------------------


def alike(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Three rounds on digits in every arithmetic."""
    modes = [
        ("cpu", "fp32"),
        *((DEVICE, dtype) for dtype in (("fp32", "tf32", "bf16") if THERE else ("bf16",))),
    ]
    seeds, length = ((0, 1, 2), "40ep") if THERE else ((0,), "1ep")
    reference: dict[int, dict[str, torch.Tensor]] = {}
    for device, dtype in modes:
        found: list[list[float]] = [[], []]
        same = []
        for seed in seeds:
            run = lth.prune(
                f"name={device}-{dtype}-{seed}",
                f"runs_dir={options.work}/runs",
                f"device={device}",
                f"precision={dtype}",
                f"seed={seed}",
                "threads=1",
                f"training.length={length}",
                "pruning.rounds=3",
                "evaluation.train=false",
            )
            results = run.results()
            for values, number in zip(found, (0, 3), strict=True):
                values.append(float(results[results["round"] == number]["test_accuracy"].iloc[0]))
            masks = run.round(3).masks()
            wanted = reference.setdefault(seed, masks)
            total = sum(mask.numel() for mask in masks.values())
            same.append(sum(int((mask == wanted[name]).sum()) for name, mask in masks.items()) / total)
        yield {
            "device": device,
            "format": dtype,
            "dense, %": mean_and_spread(found[0]),
            "round 3, %": mean_and_spread(found[1]),
            "mask places as on the CPU, %": f"{100 * statistics.fmean(same):.2f}",
        }


# --- The same bytes again ----------------------------------------------------------------------------------------


def repeat(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Trainings gone on from a state, and runs killed again and again, beside ones that were left alone."""
    yield from _resumed()
    epochs, kills = (20, 3) if THERE else (2, 1)
    nets = {
        "ResNet-8 on digits, crop": [
            "model=resnet20",
            "model.depth=8",
            "dataset.augment.crop=1",
            "optimizer=sgd",
        ],
        "Conv-2 on digits, bf16": ["model=conv2", "precision=bf16"],
    }
    for number, (name, overrides) in enumerate(nets.items()):
        shared = [
            *overrides,
            f"device={DEVICE}",
            f"training.length={epochs}ep",
            "pruning.rounds=2",
            "threads=1",
        ]
        shared += ["evaluation.every=10ep", "checkpoint.every=100it"]
        whole = _bytes(_command(options.work / "whole", shared))
        rows = {
            "again": lambda wanted: _bytes(_command(options.work / "again", wanted)),
            "without graphs": lambda wanted: _bytes(
                _command(options.work / "plain", [*wanted, "cuda_graphs=false"])
            ),
            f"killed {kills} times": lambda wanted: _bytes(
                _killed(options.work / "killed", wanted, kills=kills)
            ),
        }
        for what, work in list(rows.items())[-1 if number else None :]:
            got = work(shared)
            equal = sum(got.get(key) == value for key, value in whole.items())
            yield {
                "training": name,
                "beside a run left alone": what,
                "files of states and masks": str(len(whole)),
                "equal": str(equal),
            }
        for folder in ("whole", "again", "plain", "killed"):
            shutil.rmtree(options.work / folder, ignore_errors=True)


def _resumed() -> Iterator[dict[str, str]]:
    """States after so many steps, reached at once and by way of another state, with graphs and without."""
    steps, stops = (600, (7, 150, 431)) if THERE else (6, (2,))
    for name, overrides in NETS.items():
        shared = [*overrides, f"device={DEVICE}", "precision=bf16", "training.length=100000it", "threads=1"]
        plain = make_plan(load("train", [*shared, "cuda_graphs=false"]).config).dense
        trajectory = make_plan(load("train", shared).config).dense
        whole = _state(_trainer(plain), steps)
        states = [_state(_trainer(trajectory), steps)]
        for stop in stops:
            trainer = _trainer(trajectory)
            _through(trainer)(stop)
            states.append(_state(Trainer(trajectory, trainer.state()), steps - stop))
        yield {
            "training": f"{name}, bf16",
            "beside a run left alone": f"at once, and gone on from {len(stops)} states; that one without graphs",
            "files of states and masks": str(len(states)),
            "equal": str(sum(state == whole for state in states)),
        }


def _state(trainer: Trainer, steps: int) -> str:
    """Digest of everything the next step depends on."""
    _through(trainer)(steps)
    state = trainer.state()
    optimizer = {
        f"{name}.{key}": value for name, held in state.optimizer.items() for key, value in held.items()
    }
    return content_digest(state.weights | state.buffers | optimizer, {})


def _command(folder: Path, overrides: list[str]) -> Path:
    subprocess.run(
        _words(folder, overrides), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return folder


def _words(folder: Path, overrides: list[str]) -> list[str]:
    code = "from lth_cli.cli.main import main; main()"
    return [sys.executable, "-c", code, "prune", "-q", "name=a", f"runs_dir={folder}", *overrides]


def _killed(folder: Path, overrides: list[str], kills: int) -> Path:
    """A run that was killed so often, a moment after it had stored something new."""
    chance = random.Random(0)
    for _ in range(kills):
        before = _stored(folder)
        process = subprocess.Popen(
            _words(folder, overrides), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and _stored(folder) == before:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
    return _command(folder, overrides)


def _stored(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.safetensors")}


def _bytes(folder: Path) -> dict[str, bytes]:
    """What the rounds of the run keep, by place."""
    kept = folder / "a"
    return {str(path.relative_to(kept)): path.read_bytes() for path in sorted(kept.rglob("*.safetensors"))}


# --- Speed -------------------------------------------------------------------------------------------------------


def large(place: object) -> Arrays:
    """Random images of ImageNet's shape."""
    return random_images((3, 224, 224), 256 if THERE else 4, tests=4)


NETS = {
    "ResNet-20, SGD, 128, crop and flip": [
        "dataset=cifar10",
        "dataset._target_=common.coloured",
        "model=resnet20",
        "optimizer=sgd",
        "optimizer.momentum=0.9",
        "training.batch_size=128",
    ],
    "LeNet-300-100, Adam, 60": ["dataset=mnist", "dataset._target_=common.grey", "training.batch_size=60"],
    "transformer, 4 blocks of 128, Adam, 64 x 64": [
        "experiment=gpt_characters",
        "model.width=128",
        "model.depth=4",
        "training.batch_size=64",
    ],
    "VGG-16, SGD, 128, crop and flip": [
        "dataset=cifar10",
        "dataset._target_=common.coloured",
        "model=vgg16",
        "optimizer=sgd",
        "optimizer.momentum=0.9",
        "training.batch_size=128",
    ],
}


def speed(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Steps of lth beside the same arithmetic by hand, and by hand in a CUDA graph."""
    for name, overrides in NETS.items():
        for dtype in ("fp32", "bf16") if THERE else ("fp32",):
            shared = ["train", [*overrides, f"precision={dtype}", f"device={DEVICE}", "schedule=constant"]]
            shared[1] += ["training.length=100000it", "threads=1"]
            plan = make_plan(load(*shared).config)
            half = everything(plan.prunable_shapes)
            for mask in half.values():
                mask.view(-1)[::2] = False
            masked = plan.retraining(
                control_masks("random", half, dict, seed=0, round_number=1), plan.dense.start
            )
            plain = make_plan(load(shared[0], [*shared[1], "cuda_graphs=false"]).config).dense
            trainers = {
                key: _trainer(it) for key, it in (("lth", plan.dense), ("masked", masked), ("plain", plain))
            }
            loops: dict[str, Callable[[int], None]] = {
                "bare": _bare(plan.dense),
                **({"graph": _recorded(plan.dense)} if THERE else {}),
                **{key: _through(trainer) for key, trainer in trainers.items()},
            }
            times = _windows(loops)
            row = {"training": name, "format": dtype}
            for key, heading in (
                ("bare", "bare loop"),
                ("graph", "bare graph"),
                ("plain", "lth without graphs"),
                ("lth", "lth"),
                ("masked", "lth, masked"),
            ):
                if key in times:
                    row[f"{heading}, steps/s"] = f"{1 / statistics.median(times[key]):,.0f}"
            against = times["graph" if THERE else "bare"]
            ratios = [mine / theirs for mine, theirs in zip(times["lth"], against, strict=True)]
            row["time of lth / best bare"] = f"{statistics.median(ratios):.2f}"
            settled = getattr(trainers["lth"]._graphs, "graphed", None)
            yield {**row, "graph taken": {True: "yes", False: "no", None: "-"}[settled]}


def _trainer(trajectory: Trajectory) -> Trainer:
    return Trainer(trajectory, initial_state(trajectory, 0))


def _through(trainer: Trainer) -> Callable[[int], None]:
    def work(steps: int) -> None:
        trainer.run(trainer.step + steps, lambda: False, lambda step, loss: None)

    return work


def _bare(trajectory: Trajectory) -> Callable[[int], None]:
    """The usual loop, on lth's batches."""
    optimizer, backward = _by_hand(trajectory)
    batches = trajectory.batches.starting_at(0)

    def work(steps: int) -> None:
        for _ in range(steps):
            batch = next(batches)
            optimizer.zero_grad(set_to_none=True)
            backward(batch)
            optimizer.step()

    return work


def _recorded(trajectory: Trajectory) -> Callable[[int], None]:
    """The same loop with forward pass, backward pass and update in one CUDA graph."""
    optimizer, backward = _by_hand(trajectory, capturable=True)
    batches = (
        batch
        for batch in trajectory.batches.starting_at(0)
        if len(next(iter(batch.values()))) == trajectory.recipe.batching.size
    )
    batch = {name: tensor.clone() for name, tensor in next(batches).items()}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(batch)
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def work(steps: int, kept: object = step) -> None:  # a graph keeps nothing of what it works on alive
        for _ in range(steps):
            found = next(batches)
            for name, tensor in batch.items():
                tensor.copy_(found[name])
            graph.replay()

    return work


def _by_hand(trajectory: Trajectory, capturable: bool = False) -> tuple[Any, Callable[[Any], None]]:
    recipe = trajectory.recipe
    execution, objective = recipe.execution, recipe.objective
    execution.activate()
    model = execution.place(recipe.build(0)).train()
    optimizer = optimizers.build(recipe.optimizer, model)
    if capturable:
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True

    def backward(batch: Any) -> None:
        objective.loss(answer(model, objective, batch, execution), batch).backward()

    return optimizer, backward


def _windows(loops: dict[str, Callable[[int], None]]) -> dict[str, list[float]]:
    """Seconds a step in each window; all loops in turn, after a while to warm up."""
    pairs, seconds = (5, 0.2) if THERE else (1, 0.05)
    steps = {}
    for name, loop in loops.items():
        loop(50 if THERE else 1)
        steps[name] = max(1, round(seconds / _timed(loop, 20 if THERE else 1)))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(pairs):
        for name, loop in loops.items():
            times[name].append(_timed(loop, steps[name]))
    return times


def _timed(loop: Callable[[int], None], steps: int) -> float:
    _wait()
    begun = time.perf_counter()
    loop(steps)
    _wait()
    return (time.perf_counter() - begun) / steps


def _wait() -> None:
    if THERE:
        torch.cuda.synchronize()


# --- Memory ------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The peak of steps of ResNet-50 on images of 224 pixels, each loop in a process of its own."""
    batch = 64 if THERE else 2
    for dtype in ("fp32", "bf16"):
        peaks = {}
        for which in ("bare", "lth", "masked"):
            words = [sys.executable, __file__, f"--peak={which}", f"--format={dtype}", f"--batch={batch}"]
            found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            peaks[which] = float(found.split()[-1])
        yield {
            "ResNet-50": f"{batch} examples, {dtype}",
            "bare loop, GiB": f"{peaks['bare']:.2f}",
            "lth, GiB": f"{peaks['lth']:.2f}",
            "lth, masked, GiB": f"{peaks['masked']:.2f}",
            "lth / bare": f"{peaks['lth'] / peaks['bare']:.3f}",
            "masked / bare": f"{peaks['masked'] / peaks['bare']:.3f}",
        }


def _peak(which: str, dtype: str, batch: int) -> float:
    """GiB allocated at the peak of four steps; on a CPU, of the whole process."""
    overrides = ["dataset=cifar10", "dataset._target_=gpu.large", "dataset.augment.crop=0", "model=resnet50"]
    overrides += ["dataset.augment.flip=false", f"training.batch_size={batch}", f"precision={dtype}"]
    overrides += [f"device={DEVICE}", "optimizer=sgd", "optimizer.momentum=0.9"]
    plan = make_plan(load("train", overrides).config)
    trajectory = plan.dense
    if which == "masked":
        half = everything(plan.prunable_shapes)
        masks = control_masks("random", half, dict, seed=0, round_number=1)
        trajectory = plan.retraining(masks, trajectory.start)
    steps = 4 if THERE else 1
    (_bare(trajectory) if which == "bare" else _through(_trainer(trajectory)))(steps)
    if THERE:
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- Real data ---------------------------------------------------------------------------------------------------


def peer(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """A step of open_lth, from two runs that differ in length, beside a step of lth's, found in the same way."""
    if options.open_lth is None or options.images is None:
        raise SystemExit("needs --open-lth and --images")
    from against_open_lth import CASES, _prepare_data

    case = CASES["resnet"]
    _prepare_data(argparse.Namespace(case="resnet", images=options.images, work=options.work))
    short, long = (100, 400) if THERE else (2, 4)
    os.environ["LTH_CACHE_DIR"] = str(options.work / "cache")  # where the images are now

    def theirs(steps: int) -> float:
        home = options.work / f"home-{steps}"
        home.mkdir()
        (home / "open_lth_datasets").symlink_to(options.work / "datasets")
        words = [
            sys.executable,
            str(Path(__file__).parent / "start_open_lth.py"),
            str(options.open_lth),
            "0",
            "train",
        ]
        words += ["--batch_size=128", "--model_init=kaiming_normal", "--batchnorm_init=uniform"]
        words += [
            "--optimizer_name=sgd",
            f"--training_steps={steps}it",
            "--evaluate_only_at_end",
            *case.theirs,
        ]
        begun = time.monotonic()
        subprocess.run(words, env={**os.environ, "HOME": str(home)}, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - begun

    def ours(steps: int, dtype: str) -> float:
        words = [f"device={DEVICE}", f"precision={dtype}", f"training.length={steps}it", "schedule=constant"]
        words += ["training.batch_size=128", "optimizer=sgd", *case.ours, f"dataset.path={options.images}"]
        words += [
            "evaluation.train=false",
            "evaluation.every=1000000it",
            f"name=a{steps}{dtype}",
            "threads=1",
        ]
        begun = time.monotonic()
        lth.train(f"runs_dir={options.work}/{steps}{dtype}", *words)
        return time.monotonic() - begun

    their_step = (theirs(long) - theirs(short)) / (long - short)
    yield {
        "ResNet-20, 128, crop and flip": "open_lth",
        "ms a step": f"{1000 * their_step:.2f}",
        "times as fast": "1",
    }
    many = 10 * long if THERE else long
    for dtype in ("fp32", "bf16"):
        step = (ours(many, dtype) - ours(short, dtype)) / (many - short)
        yield {
            "ResNet-20, 128, crop and flip": f"lth, {dtype}",
            "ms a step": f"{1000 * step:.2f}",
            "times as fast": f"{their_step / step:.1f}",
        }


def tickets(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Tickets of ResNet-20 rewound to step 500 beside ones rewound to the start, round by round."""
    if options.images is None:
        raise SystemExit("needs --images")
    steps = options.steps or (20_000 if THERE else 4)
    shared = ["experiment=lmc_resnet20_cifar10", "dataset=cifar10_images", f"dataset.path={options.images}"]
    shared += [f"device={DEVICE}", "precision=bf16", f"training.length={steps}it", "evaluation.train=false"]
    shared += [f"evaluation.every={steps}it", "threads=1"]
    # At the same shares of the training as in the paper.
    drops = ",".join(f"{round(share * steps)}it" for share in (32 / 63, 48 / 63))
    shared.append(f"schedule.milestones=[{drops}]")
    points = ("500it", "0") if THERE else ("2it", "0")
    for rounds in (3, 6, 8) if THERE else (1,):
        begun = time.monotonic()
        wanted = [*shared, f"rewind.to={','.join(points)}", f"pruning.rounds={rounds}"]
        _sweep(options.work / "tickets", wanted, workers=2)
        for path in sorted((options.work / "tickets" / "runs").glob("*/run.json")):
            run = lth.run(path.parent)
            results = run.results()
            last = results[results["round"] == rounds]
            if last.empty:
                continue
            yield {
                "steps": str(steps),
                "rewound to": str(run.config["rewind"]["to"]),
                "weights remaining, %": f"{100 * last['density'].iloc[0]:.1f}",
                "ticket, %": f"{100 * last['test_accuracy'].iloc[0]:.2f}",
                "dense, %": f"{100 * results['test_accuracy'].iloc[0]:.2f}",
                "seconds of both": f"{time.monotonic() - begun:.0f}",
            }


def seeds(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The same pruning of several seeds: a command each, and one sweep whose workers share the device."""
    count, rounds, length = (8, 12, 10) if THERE else (2, 1, 1)
    found = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))  # where other processes find `common`
    shared = ["dataset=mnist", "dataset._target_=common.grey", f"device={DEVICE}", "threads=1"]
    shared += [f"training.length={length}ep", f"pruning.rounds={rounds}", "evaluation.train=false"]
    alone = []
    for seed in range(2):
        begun = time.monotonic()
        command("prune", "-q", *shared, f"seed={seed}", runs_dir=options.work / "alone")
        alone.append(time.monotonic() - begun)
    one_by_one = count * statistics.fmean(alone)
    yield {
        "seeds": str(count),
        "how": "a command each, one after another (mean of two, times their number)",
        "seconds": f"{one_by_one:.0f}",
        "times as fast": "1",
    }
    for workers in (count // 2, count) if THERE else (count,):
        begun = time.monotonic()
        _sweep(options.work / f"sweep{workers}", [*shared, f"seed=range({count})"], workers)
        took = time.monotonic() - begun
        yield {
            "seeds": str(count),
            "how": f"one sweep, workers: {workers}",
            "seconds": f"{took:.0f}",
            "times as fast": f"{one_by_one / took:.1f}",
        }


def _sweep(folder: Path, overrides: list[str], workers: int) -> None:
    local = ["launcher=local", f"launcher.workers={workers}", *(["launcher.gpus=[0]"] if THERE else [])]
    command("prune", "-m", "-q", *overrides, *local, runs_dir=folder / "runs")


PARTS = {
    "alike": Part(
        "CPU and GPU",
        "LeNet-300-100 on digits, 3 rounds of 20 %, 3 seeds. Rounding differs between devices and formats, and "
        "training makes it grow: masks are compared place by place with those of the CPU.",
        150,
        alike,
    ),
    "repeat": Part(
        "The same bytes",
        "2 rounds. SIGKILL at random moments, the same command again. Deterministic algorithms, as always.",
        240,
        repeat,
    ),
    "speed": Part(
        "Steps a second",
        "Medians of 5 windows in turn. The bare loops do the same arithmetic on lth's batches, under deterministic "
        "algorithms as well; the graph has forward pass, backward pass and update in one.",
        150,
        speed,
    ),
    "memory": Part("Peak of memory", "Four steps; each loop in a process of its own.", 90, memory),
    "peer": Part(
        "Beside open_lth",
        "Seconds of a long run less those of a short one, over the steps between. open_lth reads each image through "
        "PIL in the training process, its default.",
        200,
        peer,
    ),
    "seeds": Part(
        "Several seeds",
        "LeNet-300-100 on images of MNIST's shape, 12 rounds of 2,000 steps in batches of 60; whole processes, "
        "starting included.",
        240,
        seeds,
    ),
    "tickets": Part(
        "Tickets of ResNet-20",
        "CIFAR-10 as JPEG images; the recipe of Frankle et al. 2020 but for its length, one seed, bf16; two workers "
        "share the GPU.",
        400,
        tickets,
    ),
}


def main() -> None:
    """Run the parts and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--open-lth", type=Path)
    parser.add_argument("--steps", type=int, help="of a training of `tickets`")
    parser.add_argument(
        "--work", type=Path, help="an empty folder for runs and data; a temporary one by default"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # of the processes started here
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--format", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_peak(options.peak, options.format, options.batch))
        return
    options.images, options.open_lth, options.work = (
        path and path.absolute() for path in (options.images, options.open_lth, options.work)
    )
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            options.work = options.work or Path(folder)
            for row in PARTS[options.part].work(options):
                print(json.dumps(row), flush=True)
        return
    if not THERE:
        print("There is no GPU here: the parts run in small on the CPU.", file=sys.stderr)
    end = time.monotonic() + 60 * options.minutes
    name = torch.cuda.get_device_name() if THERE else "no GPU, everything in small"
    lines = ["# What a GPU shows\n", made_on([0], 1), f"{name}; {time.strftime('%Y-%m-%d')}.\n"]
    for key in options.parts:
        lines += _told(PARTS[key], *_rows(options, key, min(PARTS[key].limit, end - time.monotonic())))
        if THERE:
            write_result("gpu", "\n".join(lines))
    if not THERE:
        print("\n".join(lines))


def _rows(options: argparse.Namespace, key: str, seconds: float) -> tuple[list[dict[str, str]], str]:
    """What a part found, and how it ended where that was not the end."""
    if seconds < 5:
        return [], "was not begun: the minutes are used up"
    words = [sys.executable, __file__, f"--part={key}"]
    for flag, value in (
        ("--images", options.images),
        ("--open-lth", options.open_lth),
        ("--steps", options.steps),
        ("--work", options.work),
    ):
        words += [flag, str(value)] if value else []
    begun = time.monotonic()
    print(f"{key} ...", file=sys.stderr, flush=True)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            ended = "" if process.returncode == 0 else f"failed with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            ended = f"was stopped at its limit of {seconds:.0f} s"
    print(f"{key}: {time.monotonic() - begun:.0f} s {ended}", file=sys.stderr, flush=True)
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], ended


def _told(part: Part, rows: list[dict[str, str]], ended: str) -> list[str]:
    lines = [f"## {part.title}\n", f"{part.note}\n"]
    if rows:
        headings = list(rows[-1])
        lines += [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
        lines += [f"| {' | '.join(row.get(heading, '') for heading in headings)} |" for row in rows]
        lines.append("")
    return [*lines, f"This part {ended}.\n"] if ended else lines


if __name__ == "__main__":
    main()
