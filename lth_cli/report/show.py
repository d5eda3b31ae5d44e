"""What a person sees of finished work: tables, where things lie, what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lth_cli.config.errors import LthError
from lth_cli.config.named import option_of
from lth_cli.report.comparing import print_comparison
from lth_cli.report.curves import by_what_is_left
from lth_cli.report.facts import told_goal
from lth_cli.report.figures import PLAIN, Look, chart_figure, file_of, rounds_figure
from lth_cli.report.layout import print_table
from lth_cli.report.series import Axis, group_runs, labels
from lth_cli.report.tables import rounds_table
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.formats import NewerFormat
from lth_cli.store.own_code import changes
from lth_cli.store.runs import Run
from lth_cli.store.tags import read_tags


def draw_figures(run: Run) -> None:
    """Draw the run's own figure into its folder."""
    rounds_figure([[run]], run.path / "figures" / run.headline.name)


def print_result(runs: Sequence[Run]) -> None:
    """A table for every group of runs that differ by seed, where they are stored, and what to type next."""
    console = Console()
    groups = group_runs(runs)
    for group, label in zip(groups, labels(groups), strict=True):
        subset = _subset(group[0])
        seeds = ", ".join(str(run.config.get("seed")) for run in group)
        several = f"mean ± standard deviation over seeds {seeds}" if len(group) > 1 else f"seed {seeds}"
        several += f"; evaluated on {subset:,} examples" if subset else ""
        print_table(rounds_table(group), f"{label}: test {group[0].headline.title} ({several})", console)
        console.print()
    for run in runs:
        trained, reused = steps(run)
        console.print(
            f"Stored in {run.path}  ({trained:,} steps trained, {reused:,} reused)",
            soft_wrap=True,
            highlight=False,
        )
    names = [str(run.path) if run.path.parent != Path("runs") else run.name for run in runs]
    console.print("\nNext:", highlight=False)
    console.print(f"  lth show {names[0]}", highlight=False, soft_wrap=True)
    if len(names) > 1:
        console.print(
            f"  lth compare {' '.join(names)} --figure {runs[0].headline.name}.png",
            highlight=False,
            soft_wrap=True,
        )
    console.print("  lth ls", highlight=False)


def steps(run: Run) -> tuple[int, int]:
    """Steps trained and steps reused, over all rounds and controls, and the trainings they start from."""
    rows = _trainings(run)
    return sum(int(row["steps_trained"] or 0) for row in rows), sum(
        int(row["steps_reused"] or 0) for row in rows
    )


def training_madds(run: Run) -> tuple[int, int] | None:
    """Multiply-adds of the steps trained and of those reused, likewise; None where an earlier release noted none."""
    rows = [{**row, **row.get("cost", {})} for row in _trainings(run)]
    if any(row.get("training_madds") is None for row in rows):
        return None
    return sum(row["training_madds"] for row in rows), sum(row["reused_madds"] for row in rows)


def _trainings(run: Run) -> list[dict[str, Any]]:
    """A row of results or a summary of each training."""
    return [
        *(row for branch in (None, *run.branches()) for row in run.results(branch)),
        *(origin.summary for origin in run.origins() if origin.finished),
    ]


def _cost(run: Run) -> str:
    """From the dense network to that of the last round, and what training took; empty where nothing is known of it."""
    last = run.results()[-1:]
    if not last or last[0].get("madds") is None:
        return ""
    row, training = last[0], training_madds(run)
    left = (
        f"{row['dense_parameters']:,} -> {row['parameters']:,} parameters, "
        f"{row['dense_madds']:,} -> {row['madds']:,} multiply-adds a forward pass"
    )
    if training is None:
        return left
    return f"{left}; training {training[0]:.3g} trained, {training[1]:.3g} reused"


def as_json(run: Run) -> dict[str, Any]:
    """Everything `lth show` tells, as plain values."""
    trained, reused = steps(run)
    tags = read_tags(run.path)
    return {
        "path": str(run.path),
        "state": run.effective_state,
        "tags": list(tags.tags),
        "note": tags.note,
        "info": {key: value for key, value in run.info.items() if key != "files"},
        "config": run.config,
        "own_code_changes": changes(run),
        "results": run.results(),
        "controls": {branch: run.results(branch) for branch in run.branches()},
        "origins": [_origin(origin.summary) for origin in run.origins() if origin.finished],
        "steps_trained": trained,
        "steps_reused": reused,
        **dict(zip(("training_madds", "reused_madds"), training_madds(run) or (None, None), strict=True)),
        "analyses": [{"path": str(stored.path), **_found(stored)} for stored in StoredAnalysis.all_of(run)],
    }


def _found(stored: StoredAnalysis) -> dict[str, Any]:
    """Of an answer, what it says in few words."""
    try:
        result = stored.result
    except NewerFormat as error:
        return {"analysis": stored.path.name, "summary": {}, "headline": [str(error)]}
    except LthError as error:
        return {"analysis": stored.path.name, "summary": {}, "headline": [f"damaged: {error}"]}
    return {key: result[key] for key in ("analysis", "summary", "headline")}


def _origin(summary: dict[str, Any]) -> dict[str, Any]:
    """Of a training that rounds start from, what it cost."""
    keys = ("trajectory", "start_step", "end_step", "steps_trained", "steps_reused", "cost")
    return {key: summary[key] for key in keys if key in summary}


def facts(run: Run) -> dict[str, str]:
    """What a run is, in words."""
    info, config, tags = run.info, run.config, read_tags(run.path)
    trained, reused = steps(run)
    return {
        "state": run.effective_state + (f": {info['error']}" if info.get("error") else ""),
        "command": " ".join(map(str, info.get("command", []))),
        "created": f"{info.get('created')}, finished {info.get('finished') or '-'}",
        **({"imported": _imported(info["imported"])} if "imported" in info else {}),
        **({"masks of": info["source"]["path"]} if "source" in info else {}),
        **({"tags": " ".join(tags.tags)} if tags.tags else {}),
        **({"note": tags.note} if tags.note else {}),
        "model": _named(run, "model"),
        "data set": _named(run, "dataset"),
        "training": f"{config['training']['length']}, batch {config['training']['batch_size']}, "
        f"{config['optimizer']['_target_']} lr {config['optimizer']['lr']}",
        **({"goal": told} if (told := told_goal(config, (run.results() or [{}])[-1])) else {}),
        **({"taught by": taught} if (taught := ", ".join(_teachers(run))) else {}),
        **({"own code": told} if (told := _own_code(run)) else {}),
        **(
            {"evaluated": f"on {subset:,} examples of each split, not all"}
            if (subset := _subset(run))
            else {}
        ),
        "rewind to": config["rewind"]["to"],
        "machine": f"{info['hardware']['processor']}, {info['hardware']['device']}, "
        f"{info['hardware']['threads']} threads, torch {info['versions']['torch']}",
        "steps": f"{trained:,} trained, {reused:,} reused",
        **({"cost": told} if (told := _cost(run)) else {}),
        "stored in": str(run.path),
    }


def print_run(run: Run) -> None:
    """One run: what it is, its state, its rounds, its files."""
    console = Console()
    console.print(f"[bold]{run.name}[/bold]", highlight=False)
    for name, value in facts(run).items():
        console.print(f"  {name:<10} {value}", highlight=False, markup=False, soft_wrap=True)
    if run.results():
        print_table(rounds_table([run]), f"test {run.headline.title}", console)
    for stored in StoredAnalysis.all_of(run):
        lines = [f"analysis {stored.path.name}: {_found(stored)['headline'][0]}", f"  {stored.path}"]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _subset(run: Run) -> int | None:
    subset: int | None = run.config["evaluation"].get("subset")
    return subset


def _imported(note: dict[str, Any]) -> str:
    """What another program trained, and from where it came."""
    forms = {
        "open_lth": "open_lth, trained there",
        "weights": f"weights at the {note.get('at')} of a training elsewhere",
    }
    return f"{forms[note['form']]}; {len(note['files'])} files of {note['path']}, measured here"


def _named(run: Run, group: str) -> str:
    """What was chosen of a group, as it is typed, and the class behind it."""
    section = run.config[group]
    name = option_of(group, section, list(map(str, run.info.get("command") or ())))
    return f"{name} ({section['_target_']})"


def _own_code(run: Run) -> str:
    """Modules of a person's own, and what has changed of them since."""
    modules = {name for noted in run.info.get("own_code", {}).values() for name in noted["modules"]}
    changed = changes(run)
    told = f"; changed since: {'; '.join(changed)}" if changed else ", unchanged"
    return ", ".join(sorted(modules)) + told if modules else ""


def _teachers(run: Run) -> list[str]:
    """Teachers of the run: those it keeps by what they are, its own networks by what they are called."""
    kept = run.info.get("teachers", {})
    return [
        label
        for name in run.config["distillation"]["teachers"]
        for label in ([note["label"] for note in kept[name]] if name in kept else [name])
    ]


def compare(
    runs: Sequence[Run],
    figure: Path | None,
    axis: Axis = "density",
    metric: str | None = None,
    look: Look = PLAIN,
) -> None:
    """A table of several runs, seeds put together, what differs, and on request one figure of all.

    Raises:
        RequestError: before anything is printed, the figure cannot be what was asked for.
        LthError: when there is nothing to draw yet.
    """
    console = Console()
    place = None if figure is None else file_of(figure)
    groups = group_runs(runs)
    chart = None if place is None else by_what_is_left(groups, axis, metric)
    print_comparison(groups)
    if place is not None:
        if chart is None:
            raise LthError("these runs have no finished round to draw yet")
        stem, endings = place
        written = chart_figure(chart, stem, look=look, endings=endings)
        console.print("Drawn: " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
