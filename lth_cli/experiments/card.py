"""A reproducibility card: a run on one page of Markdown, for who gets its archive; made of what the run notes alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lth_cli.config.metrics import Metric
from lth_cli.store.runs import Run
from lth_cli.store.states import state_name

_SECRET = ("runs_dir", "name", "data")  # of the machine it ran on


def card(run: Run, files: Mapping[str, str]) -> str:
    """The card of a finished run; the same run gives the same text.

    Args:
        run: finished.
        files: SHA-256 of what is packed, by path in the run.

    Raises:
        Damaged, ReadFailed.
    """
    info, config = run.info, run.config
    subset = config.get("evaluation", {}).get("subset")
    measured = f", on {subset:,} examples of each split" if subset else ""
    lines = [
        f"# {run.name}",
        "",
        f"A run of `lth {info['kind']}`, made by lth {info['versions']['lth']} on {str(info['created'])[:10]}. "
        "This archive has its masks, rewind points, ends, results and analyses.",
        "",
        f"## Numbers{measured}",
        "",
    ]
    for branch in (None, *run.branches()):
        lines += [f"Control `{branch}`:", ""] if branch else []
        lines += [*_table(run.results(branch), run.metrics), ""]
    lines += [
        "## Use",
        "",
        "```",
        f"lth unpack {run.name}.tar                # checks every byte, executes nothing",
        f"lth show {run.name}",
        f"lth rewind {run.name}                    # trains its tickets again from their start",
        f"lth export {run.name} --round {_last(run)} --to safetensors ticket.safetensors",
        "```",
        "",
        "## Make it again",
        "",
        "```",
        shlex.join(map(str, info.get("command") or ())) or "not noted",
        "```",
        "",
        *_facts(run),
        "",
        "Each training is known by the digest of all that decides its numbers; on a CPU, with the versions below and "
        "as many threads, the same command gives the same bytes.",
        "",
        "| round | training | state at its end (SHA-256 of the file) |",
        "|---|---|---|",
        *_identities(run, files),
        "",
        "## Made with",
        "",
        *(f"- {name}: {version}" for name, version in sorted(info["versions"].items())),
        *(
            f"- {name}: {info['hardware'].get(name)}"
            for name in ("processor", "device", "accelerator", "threads")
        ),
        f"- commit of the folder it was typed in: {info.get('git_commit') or 'none'}",
        "",
        "## Config",
        "",
        "```yaml",
        yaml.safe_dump(
            {key: value for key, value in config.items() if key not in _SECRET}, sort_keys=False
        ).rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> list[str]:
    """A row a round: its density and what was measured at its end."""
    found = [
        (f"{split}_{metric.name}", f"{split} {metric.title}", metric)
        for metric in metrics
        for split in ("val", "test")
        if any(row.get(f"{split}_{metric.name}") is not None for row in rows)
    ]
    lines = [
        "| round | density (%) | " + " | ".join(title for _, title, _ in found) + " |",
        "|---" * (2 + len(found)) + "|",
    ]
    for row in rows:
        values = [
            "" if (value := row.get(column)) is None else metric.number(value) for column, _, metric in found
        ]
        lines.append(f"| {row['round']} | {100 * row['density']:.4g} | " + " | ".join(values) + " |")
    return lines


def _last(run: Run) -> int:
    return max((round_.number for round_ in run.rounds() if round_.finished), default=0)


def _facts(run: Run) -> list[str]:
    """What else somebody needs who makes it again."""
    info = run.info
    told = [f"- seeds: {', '.join(f'{name} {seed}' for name, seed in info['seeds'].items())}"]
    if "source" in info:
        told.append(
            f"- it retrains the masks of the run `{info['source']['name']}` (id {info['source']['id']})"
        )
    if "imported" in info:
        told.append(f"- imported ({info['imported']['form']}); trained by another program")
    for notes in info.get("teachers", {}).values():
        told += [f"- taught by `{note['label']}`, whose state is in the archive" for note in notes]
    modules = sorted({name for noted in info.get("own_code", {}).values() for name in noted["modules"]})
    if modules:
        told.append(f"- code of its author's own, whose source `run.json` has: {', '.join(modules)}")
    if not info.get("repeatable", True):
        told.append(f"- the same seed need not give the same bytes: {info.get('not_repeatable_because')}")
    return told


def _identities(run: Run, files: Mapping[str, str]) -> list[str]:
    lines = []
    for branch in (None, *run.branches()):
        for round_ in run.rounds(branch):
            if not round_.finished:
                continue
            summary = round_.summary
            end = round_.folder / "checkpoints" / state_name(int(summary["end_step"]))
            sha = files.get(end.relative_to(run.path).as_posix(), "not kept")
            label = f"{branch}/{round_.number}" if branch else str(round_.number)
            lines.append(f"| {label} | `{summary['trajectory'][:16]}` | `{sha}` |")
    return lines
