"""`lth export`: a round's network in a form that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "export",
        help="Write the masked network of a round for other programs: safetensors, state_dict, prune (of "
        "torch.nn.utils.prune), csr, onnx or huggingface (a folder).",
        epilog="Example: lth export imp --round 5 --to safetensors ticket.safetensors",
    )(_export)


def _export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of the run.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder to write; must not exist.")],
    round_: Annotated[int, typer.Option("--round", min=0, help="Which finished round.")],
    to: Annotated[
        str, typer.Option("--to", help="safetensors, state_dict, prune, csr, onnx or huggingface.")
    ],
    step: Annotated[str, typer.Option("--step", help="init, end or a step of the round's training.")] = "end",
    control: Annotated[
        str | None, typer.Option("--control", help="Kind of controls, instead of the run's own rounds.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the stored config of the run name code from outside lth.")
    ] = False,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", envvar="LTH_RUNS_DIR", help="Folder of runs.")
    ] = Path("runs"),
) -> None:
    from lth_cli.config.schema import DataPlace
    from lth_cli.experiments.export import FORMS, export
    from lth_cli.experiments.opened import Place
    from lth_cli.experiments.recorded import open_round
    from lth_cli.experiments.trust import check_trust
    from lth_cli.store.runs import find_run

    if to not in FORMS:
        raise typer.BadParameter(f"{to!r}; accepted: {', '.join(FORMS)}", param_hint="--to")
    number = int(step) if step.isascii() and step.isdigit() else step
    if isinstance(number, str) and number not in ("init", "end"):
        raise typer.BadParameter(f"{step!r}; accepted: init, end or a number of steps", param_hint="--step")
    found = find_run(runs_dir, run)
    if not trust:
        check_trust(found)
    recorded = open_round(found, round_, Place(str(runs_dir), DataPlace()), branch=control)
    export(recorded, number, to, path)  # type: ignore[arg-type]
    typer.echo(path)
