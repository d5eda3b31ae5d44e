"""Parity with open_lth: kept weights and accuracies of both programs, level by level, and what each takes.

Run: python benchmarks/against_open_lth.py lenet --open-lth FOLDER --data-root FOLDER [--seeds 0 1 2 3 4]
     python benchmarks/against_open_lth.py resnet --open-lth FOLDER --images FOLDER_OR_ARCHIVE

--open-lth is a checkout of facebookresearch/open_lth, which stays as it is. Both programs run as a person would run
them, one process at a time, in turn which is first: same data and normalisation, architecture and initialiser, batch
size, rate, optimizer, steps, incomplete last batches, tests at the start and the end of each level, and
pruning.count=open_lth. Finished pieces lie in --work and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common import lth_json, made_on, mean_and_spread, write_result

from lth_cli.data.image_folder import image_folder
from lth_cli.data.source import Place
from lth_cli.store.runs import Run

BATCH = 128


@dataclass(frozen=True)
class Case:
    """A setting that both programs are told.

    Attributes:
        title: of the result.
        theirs: arguments of open_lth.
        ours: overrides of lth.
        left_out: tensors that both leave unpruned.
        length: default length of a training.
        levels: default number of pruned levels.
    """

    title: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    left_out: tuple[str, ...]
    length: str
    levels: int


CASES = {
    "lenet": Case(
        "LeNet-300-100 on MNIST",
        (
            "--dataset_name=mnist",
            "--model_name=mnist_lenet_300_100",
            "--lr=0.1",
            "--pruning_layers_to_ignore=fc.weight",
        ),
        (
            "dataset=mnist",
            "model=lenet_300_100",
            "optimizer.lr=0.1",
            "optimizer.momentum=0",
            "optimizer.weight_decay=0",
        ),
        ("fc.weight",),
        "2ep",
        5,
    ),
    "resnet": Case(
        "ResNet-20 on CIFAR-10 images",
        (
            "--dataset_name=cifar10",
            "--model_name=cifar_resnet_20",
            "--lr=0.1",
            "--momentum=0.9",
            "--weight_decay=0.0001",
        ),
        (
            "dataset=cifar10_images",
            "dataset.normalize.mean=[0.485,0.456,0.406]",
            "dataset.normalize.std=[0.229,0.224,0.225]",
            "model=resnet20",
            "optimizer.lr=0.1",
            "optimizer.momentum=0.9",
            "optimizer.weight_decay=1e-4",
        ),
        (),
        "400it",
        2,
    ),
}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--open-lth", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, help="lenet: folder with MNIST/raw")
    parser.add_argument(
        "--images", type=Path, help="resnet: train/<class>/<image> and test/, or their archive"
    )
    parser.add_argument("--length", help="of a training, 2ep or 400it")
    parser.add_argument("--levels", type=int, help="pruned levels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of lth")
    parser.add_argument("--name", help="of the result; says the case by default")
    parser.add_argument("--work", type=Path, default=Path("runs/.against_open_lth"))
    options = parser.parse_args()
    case = CASES[options.case]
    options.length, options.levels = options.length or case.length, options.levels or case.levels
    if options.case == "lenet" and options.data_root is None:
        parser.error("lenet needs --data-root")
    if options.case == "resnet" and options.images is None:
        parser.error("resnet needs --images")
    options.work = options.work.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    _prepare_data(options)
    programs: dict[str, Callable[[argparse.Namespace, int, Path], dict[str, Any]]] = {
        "open_lth": _open_lth,
        "lth": _lth,
    }
    pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for position, seed in enumerate(options.seeds):
        for name in sorted(programs, reverse=position % 2 == 0):
            pieces[name].append(_piece(options, name, seed, programs[name]))
    _write(options, case, pieces)


def _piece(
    options: argparse.Namespace,
    program: str,
    seed: int,
    work: Callable[[argparse.Namespace, int, Path], dict[str, Any]],
) -> dict[str, Any]:
    """What a program came to with a seed: read where it is there, else run in a folder of its own."""
    how = f"{program}-{options.precision}" if program == "lth" and options.precision != "fp32" else program
    what = f"{options.case}-{options.length}-{options.levels}-{options.threads}-{how}-{seed}"
    path, folder = options.work / f"{what}.json", options.work / what
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        found = work(options, seed, folder)
        path.with_suffix(".part").write_text(json.dumps(found))
        path.with_suffix(".part").rename(path)
        shutil.rmtree(folder)
    return dict(json.loads(path.read_text()))


def _open_lth(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """A run of open_lth; its home folder, where it keeps everything, is `folder`."""
    case = CASES[options.case]
    (folder / "open_lth_datasets").symlink_to(options.work / "datasets")
    begun = time.monotonic()
    subprocess.run(
        [
            sys.executable,
            Path(__file__).parent / "start_open_lth.py",
            options.open_lth,
            str(seed),
            "lottery",
            f"--levels={options.levels}",
            f"--data_order_seed={1000 * seed}",
            f"--batch_size={BATCH}",
            "--model_init=kaiming_normal",
            "--batchnorm_init=uniform",
            "--optimizer_name=sgd",
            f"--training_steps={options.length}",
            "--pruning_strategy=sparse_global",
            "--pruning_fraction=0.2",
            "--evaluate_only_at_end",
            *case.theirs,
        ],
        env={**os.environ, **_threads(options), "HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - begun
    kept, accuracies = [], []
    (run,) = (folder / "open_lth_data").glob("lottery_*/replicate_1")
    for level in range(options.levels + 1):
        place = run / f"level_{level}" / "main"
        masks = torch.load(place / "mask.pth", weights_only=True)
        kept.append(sum(int(mask.sum()) for name, mask in masks.items() if name not in case.left_out))
        lines = [line.split(",") for line in (place / "logger").read_text().split()]
        last = max((int(step), float(value)) for name, step, value in lines if name == "test_accuracy")
        accuracies.append(last[1])
    return {"kept": kept, "accuracy": accuracies, "seconds": seconds}


def _lth(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """A run of lth, in an empty folder of runs."""
    images = () if options.images is None else (f"dataset.path={options.images.absolute()}",)
    os.environ["LTH_CACHE_DIR"] = str(options.work / "cache")
    begun = time.monotonic()
    result = lth_json(
        "prune",
        "-q",
        "name=a",
        f"seed={seed}",
        "device=cpu",
        f"threads={options.threads}",
        f"precision={options.precision}",
        *CASES[options.case].ours,
        *images,
        "optimizer=sgd",
        "schedule=constant",
        f"training.length={options.length}",
        f"training.batch_size={BATCH}",
        f"pruning.rounds={options.levels}",
        "pruning.fraction=0.2",
        "pruning.count=open_lth",
        f"evaluation.every={options.length}",
        f"evaluation.batch_size={BATCH}",
        "evaluation.train=false",
        runs_dir=folder,
        data_root=options.data_root,
    )
    seconds = time.monotonic() - begun
    rounds = Run.open(folder / "a").rounds()
    return {
        "kept": [sum(round_.summary["kept"].values()) for round_ in rounds],
        "accuracy": [row["test_accuracy"] for row in result["results"]],
        "seconds": seconds,
    }


def _threads(options: argparse.Namespace) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}


def _prepare_data(options: argparse.Namespace) -> None:
    """The data where open_lth looks for it: a link, or the pixels that lth decodes in the layout of CIFAR-10."""
    datasets = options.work / "datasets"
    datasets.mkdir(exist_ok=True)
    if options.case == "lenet":
        link = datasets / "mnist"
        link.unlink(missing_ok=True)
        link.symlink_to(options.data_root.absolute())
        return
    batches = datasets / "cifar10" / "cifar-10-batches-py"
    if batches.exists():
        return
    part = batches.with_name("part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    place = Place(None, options.work / "cache", download=False, workers=0)
    arrays = image_folder(place, path=str(options.images))
    train = zip(arrays.train_inputs.chunk(5), arrays.train_labels.chunk(5), strict=True)
    files = [(f"data_batch_{i}", *pair) for i, pair in enumerate(train, 1)]
    for name, inputs, labels in [*files, ("test_batch", arrays.test_inputs, arrays.test_labels)]:
        entry = {"data": inputs.flatten(1).numpy(), "labels": labels.tolist()}
        (part / name).write_bytes(pickle.dumps(entry))
    (part / "batches.meta").write_bytes(
        pickle.dumps({"label_names": [str(i) for i in range(arrays.classes)]})
    )
    part.rename(batches)


def _write(options: argparse.Namespace, case: Case, pieces: dict[str, list[dict[str, Any]]]) -> None:
    theirs, ours = pieces["open_lth"], pieces["lth"]
    commit = subprocess.run(
        ["git", "-C", options.open_lth, "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    rows = []
    for level in range(options.levels + 1):
        kept = [{piece["kept"][level] for piece in program} for program in (theirs, ours)]
        accuracies = [[piece["accuracy"][level] for piece in program] for program in (theirs, ours)]
        cells = [" to ".join(f"{number:,}" for number in sorted({min(k), max(k)})) for k in kept]
        equal = "yes" if len(kept[0]) == 1 and kept[0] == kept[1] else "no"
        rows.append(
            f"| {level} | {cells[0]} | {cells[1]} | {equal} | {mean_and_spread(accuracies[0])} | "
            f"{mean_and_spread(accuracies[1])} | {_difference(accuracies[0], accuracies[1])} |"
        )
    times = [[piece["seconds"] for piece in program] for program in (theirs, ours)]
    lines = [
        f"# Beside open_lth: {case.title}, {options.length} a level, {options.levels} levels of 20 %\n",
        made_on(options.seeds, options.threads),
        f"open_lth at {commit or 'an unknown commit'}, NumPy {version('numpy')}, torchvision "
        f"{version('torchvision')}; {time.strftime('%Y-%m-%d')}. Both on the CPU, one process at a time. Random "
        "numbers are each program's own, so accuracies are to agree as means over seeds. Test accuracies in %, mean ± "
        "standard deviation over seeds; the difference is lth less open_lth, ± its standard error.\n",
        "| level | kept weights, open_lth | kept weights, lth | equal | accuracy, open_lth | accuracy, lth | "
        "difference |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: |",
        *rows,
        "\nKept weights are those of the tensors that are pruned"
        + (f", so without {', '.join(case.left_out)}" if case.left_out else "")
        + ".\n",
        "| | wall clock of a whole run, s |\n| --- | ---: |",
        *(
            f"| {name} | {mean_and_spread(seconds, scale=1, digits=1)} |"
            for name, seconds in zip(("open_lth", "lth"), times, strict=True)
        ),
        f"\nopen_lth takes {statistics.fmean(times[0]) / statistics.fmean(times[1]):.2f} of the time of lth. It reads "
        "each image through PIL, in the training process (its default, `--num_workers=0`); images decoded once for lth "
        "are not counted.",
    ]
    write_result(options.name or f"against_open_lth_{options.case}", "\n".join(lines) + "\n")


def _difference(theirs: list[float], ours: list[float]) -> str:
    """In points, with the standard error of a difference of means of unequal variance."""
    difference = 100 * (statistics.fmean(ours) - statistics.fmean(theirs))
    if min(len(theirs), len(ours)) < 2:
        return f"{difference:+.2f}"
    error = 100 * math.sqrt(sum(statistics.variance(values) / len(values) for values in (theirs, ours)))
    return f"{difference:+.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
