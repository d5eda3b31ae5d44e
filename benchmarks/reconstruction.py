"""What pruning and reconstructing a language model costs: the study llm_pruning, each question a process of its own.

Run: python benchmarks/reconstruction.py RUNS_DIR dataset.path=FILE dataset.test_path=FILE dataset.tokenizer=FOLDER \\
    pretrain.weights=FOLDER [profile=smollm2]

Seconds and peak memory are of the whole process: starting, reading the network, pruning, training, evaluating. What is
answered in RUNS_DIR already is not asked again; its costs were noted when it was (`reconstruction.jsonl` there). A
question that went on where a killed process had stopped has a star: its costs are those of the last process alone.
`lth study report llm_pruning` with the same settings then has the tables of the study.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import made_on, write_result

from lth_cli.studies.finding import find
from lth_cli.studies.plan import Point, make_plan

_TO_MIB = 2**-20 if sys.platform == "darwin" else 2**-10


def main() -> None:
    """Ask what is not answered yet, and write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs_dir", type=Path)
    parser.add_argument("settings", nargs="+", help="profile=NAME and KEY=VALUE, as of lth study run")
    options = parser.parse_args()
    plan = make_plan(find("llm_pruning", None), options.settings)
    notes = options.runs_dir / "reconstruction.jsonl"
    options.runs_dir.mkdir(parents=True, exist_ok=True)
    for step in plan.steps:
        for point in step.points:
            if step.command == "train":
                _lth(options.runs_dir, "train", *point.overrides, f"name={point.name}", "-q")
            elif _told(point) not in _noted(notes):
                _ask(options.runs_dir, point, notes)
    lines = [
        f"# Pruning by reconstruction: time and memory\n\n{made_on([0], 1)}",
        f"{plan.size.about}. Peak is the largest resident memory.\n",
        "| criterion | reconstruction | own texts | perplexity | error, calibration | error, test | seconds | "
        "of them CPU | peak, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in _noted(notes).values():
        asked, found = one["asked"], one["summary"]
        star = "" if one["whole"] else "*"
        lines.append(
            f"| {asked['method']} | {asked['reconstruction']} | {asked['generated']} | {found['perplexity']:.2f} | "
            f"{found['calibration_error']:.4g} | {found['test_error']:.4g} | {one['seconds']:.0f}{star} | "
            f"{one['cpu']:.0f}{star} | {one['peak'] * _TO_MIB:.0f}{star} |"
        )
    write_result("reconstruction", "\n".join(lines) + "\n")


def _told(point: Point) -> str:
    """A question by what decides it, so that what two steps ask is asked once."""
    defaults = {"analysis.generated": "0"}
    return json.dumps(defaults | dict(text.split("=", 1) for text in point.overrides), sort_keys=True)


def _noted(notes: Path) -> dict[str, dict[str, Any]]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {one["question"]: one for one in map(json.loads, lines)}


def _ask(runs_dir: Path, point: Point, notes: Path) -> None:
    (source,) = point.sources
    begun = {path.parent.name for path in (runs_dir / source / "analysis").glob("*/.block_*")}
    before = time.monotonic()
    text, usage = _lth(runs_dir, "analyze", source, *point.overrides, "--json")
    answer = json.loads(text)
    note = {
        "question": _told(point),
        "asked": {key: answer["asked"][key] for key in ("method", "reconstruction", "generated")},
        "summary": answer["summary"],
        "whole": Path(answer["path"]).name not in begun,
        "seconds": time.monotonic() - before,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss,
    }
    with notes.open("a") as opened:
        opened.write(json.dumps(note) + "\n")


def _lth(runs_dir: Path, *arguments: str) -> tuple[str, Any]:
    """Run an lth command; its standard output, and what its process used."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from lth_cli.cli.main import main; main()", *arguments],
        env={**os.environ, "LTH_RUNS_DIR": str(runs_dir)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lth {' '.join(arguments)} failed")
    return text, usage


if __name__ == "__main__":
    main()
