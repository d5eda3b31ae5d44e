"""Tickets of trainings that are no classification, by density, beside random masks and new weights.

Run: python benchmarks/other_objectives.py image [--seeds 0 1 2] [--runs-dir runs]
     python benchmarks/other_objectives.py text [--text FILE --test-text FILE]

image: experiment=siren_image, PSNR of the fitted image. text: experiment=gpt_characters, perplexity of the next
character on the last tenth of Python's language reference, or on files of your own, for instance of WikiText-2.
Finished runs in the folder are read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import lth_json, made_on, mean_and_spread, write_result

KINDS = ("random", "reinit")
METRICS = {
    "image": ("siren_image", "psnr", "PSNR in dB"),
    "text": ("gpt_characters", "perplexity", "perplexity"),
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=METRICS)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--test-text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    experiment, metric, title = METRICS[options.what]
    texts = {"path": options.text, "test_path": options.test_text}
    given = [f"dataset.{key}={path}" for key, path in texts.items() if path is not None]
    name = experiment if not given else f"{experiment}-{options.text.name.partition('.')[0]}"
    runs = [
        lth_json(
            "prune",
            "-q",
            f"experiment={experiment}",
            *given,
            f"seed={seed}",
            f"threads={options.threads}",
            f"name={name}-seed_{seed}",
            runs_dir=options.runs_dir,
        )
        for seed in options.seeds
    ]
    lines = [
        f"# Tickets of {name}\n",
        made_on(options.seeds, options.threads),
        f"Test {title} at the last step, mean ± standard deviation over seeds.\n",
        f"| round | density | ticket | {' | '.join(KINDS)} |",
        f"| ---: | ---: | ---: |{' ---: |' * len(KINDS)}",
    ]
    column = f"test_{metric}"
    for number, row in enumerate(runs[0]["results"]):
        ticket = mean_and_spread([run["results"][number][column] for run in runs], scale=1)
        cells = [
            mean_and_spread([run["controls"][kind][number - 1][column] for run in runs], scale=1)
            if number
            else ""
            for kind in KINDS
        ]
        lines.append(f"| {number} | {100 * row['density']:.2f} % | {ticket} | {' | '.join(cells)} |")
    write_result(f"other_objectives_{name}", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
