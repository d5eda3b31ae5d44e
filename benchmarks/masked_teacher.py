"""What a teacher costs that looks at some patches only (arXiv:2302.10494): multiply-adds and images a second.

Run: python benchmarks/masked_teacher.py [--images 32] [--repeats 5] [--threads 1]

Forward passes in inference mode on random images and random patches; patches are embedded before some are chosen.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from common import made_on, write_result
from torch.utils.flop_counter import FlopCounterMode

from lth_cli.models.vision_transformer import VisionTransformer

TEACHERS = {
    "DeiT-S, 196 patches": {"input_shape": (3, 224, 224), "patch": 16, "width": 384, "depth": 12, "heads": 6},
    "width 128, 16 patches": {"input_shape": (3, 32, 32), "patch": 8, "width": 128, "depth": 4, "heads": 4},
}
SHARES = (1.0, 0.75, 0.5, 0.25)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        "# Teachers that look at some patches\n",
        made_on([0], options.threads),
        f"Forward passes of {options.images} images; multiply-adds of an image, without those of "
        f"attention with itself; medians of {options.repeats} turns, in each of which every share was timed once.\n",
        "| teacher | patches | multiply-adds | of all | images a second | beside all |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, sizes in TEACHERS.items():
        torch.manual_seed(0)
        model = VisionTransformer(classes=10, **sizes).eval()  # type: ignore[arg-type]
        images = torch.randn(options.images, *sizes["input_shape"])  # type: ignore[misc]
        patches = (images.shape[2] // sizes["patch"]) ** 2  # type: ignore[operator]
        chosen = {
            share: torch.rand(len(images), patches).topk(math.ceil(share * patches), dim=1).indices
            for share in SHARES
        }
        costs, seconds = {}, {share: list[float]() for share in SHARES}
        with torch.no_grad():
            for share, kept in chosen.items():
                with FlopCounterMode(display=False) as counter:
                    model(images, None if share == 1 else kept)
                costs[share] = counter.get_total_flops() / 2 / len(images)
            for _ in range(options.repeats):
                for share, kept in chosen.items():
                    begun = time.perf_counter()
                    model(images, None if share == 1 else kept)
                    seconds[share].append(time.perf_counter() - begun)
        for share in SHARES:
            speed = len(images) / statistics.median(seconds[share])
            beside = statistics.median(
                whole / part for whole, part in zip(seconds[1.0], seconds[share], strict=True)
            )
            lines.append(
                f"| {name} | {100 * share:g} % | {costs[share] / 1e6:,.1f} M | {costs[share] / costs[1.0]:.2f} | "
                f"{speed:,.0f} | {beside:.2f}x |"
            )
    write_result("masked_teacher", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
