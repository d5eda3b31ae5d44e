"""What every measurement shares: running lth as a person would, and noting on what the numbers were made."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth_cli.data.source import Arrays

RESULTS = Path(__file__).parent / "results"


def lth(*arguments: str, runs_dir: Path, data_root: Path | None = None) -> str:
    """Run an lth command with its progress on our standard error, and return its standard output."""
    environment = {**os.environ, "LTH_RUNS_DIR": str(runs_dir)}
    if data_root is not None:
        environment["LTH_DATA_ROOT"] = str(data_root)
    done = subprocess.run(
        [sys.executable, "-c", "from lth_cli.cli.main import main; main()", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def lth_json(*arguments: str, runs_dir: Path, data_root: Path | None = None) -> Any:
    """What a command prints with --json."""
    return json.loads(lth(*arguments, "--json", runs_dir=runs_dir, data_root=data_root))


def made_on(seeds: Sequence[int], threads: int) -> str:
    """Command, hardware, versions and seeds, as the first lines of a result file."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_paths(sys.argv[1:])])
    processor = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    versions = f"lth {version('lth-cli')}, torch {version('torch')}, Python {platform.python_version()}"
    return f"`{command}`\n\n{processor}; threads={threads}; {versions}; seeds {', '.join(map(str, seeds))}.\n"


def _without_paths(arguments: Sequence[str]) -> list[str]:
    """A person's folders say nothing to others."""
    return ["FOLDER" if os.sep in argument else argument for argument in arguments]


def random_images(shape: tuple[int, ...], examples: int, tests: int = 1000) -> Arrays:
    """Random images of 10 classes, always the same, so that nothing is downloaded; the tests are the last ones."""
    import torch

    from lth_cli.data.source import Arrays

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (examples + tests, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (examples + tests,), generator=generator)
    return Arrays(inputs[:examples], labels[:examples], inputs[examples:], labels[examples:], 10)


def grey(place: object) -> Arrays:
    """Random images of MNIST's shape, named by import path in configs: `common.grey`."""
    return random_images((1, 28, 28), 12_000)


def coloured(place: object) -> Arrays:
    """Random images of CIFAR's shape, `common.coloured`."""
    return random_images((3, 32, 32), 12_800)


def mean_and_spread(values: Sequence[float], scale: float = 100.0, digits: int = 2) -> str:
    """Mean ± sample standard deviation, in per cent by default."""
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def write_result(name: str, text: str) -> None:
    """Print a result and keep it in benchmarks/results/."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
