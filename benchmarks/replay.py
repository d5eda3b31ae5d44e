"""States reached by replay against the same states stored in one pass: bytes compared at random steps.

Run: python benchmarks/replay.py [--dataset mnist --data-root FOLDER] [--steps 20]

Each step is replayed by an `lth rewind` of its own process, from whatever state is nearest by then.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from common import lth_json, made_on, write_result


def main() -> None:
    """Store, replay, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--length", default="20ep", help="training.length")
    parser.add_argument(
        "--override", nargs="*", default=[], help="further KEY=VALUE, for example model=resnet20"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    setting = (
        "-q",
        f"dataset={options.dataset}",
        f"training.length={options.length}",
        f"seed={options.seed}",
        f"threads={options.threads}",
        *options.override,
    )
    with tempfile.TemporaryDirectory(prefix="lth-replay-") as folder:
        stored_dir, replayed_dir = Path(folder) / "stored", Path(folder) / "replayed"
        place = {"runs_dir": replayed_dir, "data_root": options.data_root}
        source = lth_json("prune", *setting, "pruning.rounds=1", "name=src", **place)
        horizon = source["results"][0]["steps_trained"]
        steps = random.Random(options.seed).sample(range(1, horizon), options.steps)
        keep = ",".join(f"{step}it" for step in steps)
        stored = lth_json(
            "train",
            *setting,
            f"checkpoint.keep=[{keep}]",
            "name=stored",
            runs_dir=stored_dir,
            data_root=options.data_root,
        )
        rows = []
        for step in steps:
            run = lth_json("rewind", "src", "-q", f"rewind.to={step}it", f"name=at_{step}", **place)
            file = f"checkpoints/step_{step:08d}.safetensors"
            ours = (Path(run["path"]) / "origin" / "round_00" / file).read_bytes()
            theirs = (Path(stored["path"]) / "round_00" / file).read_bytes()
            rows.append((step, run["origins"][0]["steps_trained"], ours == theirs))
    equal = sum(same for _, _, same in rows)
    lines = [
        f"# Replay: {options.dataset}, {horizon:,} steps\n",
        made_on([options.seed], options.threads),
        f"{equal} of {len(rows)} states are equal byte for byte (weights, buffers, optimizer state).\n",
        "| step | steps replayed | bytes |\n| ---: | ---: | --- |",
        *(f"| {step:,} | {trained:,} | {'equal' if same else 'DIFFERENT'} |" for step, trained, same in rows),
    ]
    write_result("replay", "\n".join(lines) + "\n")
    raise SystemExit(equal != len(rows))


if __name__ == "__main__":
    main()
