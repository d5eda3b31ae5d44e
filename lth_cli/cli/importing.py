"""`lth import`: what another program trained, as a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lth_cli.cli.running import ConfigDir, Json, Overrides


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "import",
        help="Make a run, for lth rewind and lth analyze, of what another program trained: a run folder of open_lth, "
        "or weights and a mask. Nothing in the files is executed.",
        epilog="Examples: lth import ~/open_lth_data/lottery_1a2b/replicate_1   "
        "lth import ticket.pt --mask mask.pt model=resnet20 dataset=cifar10 rewind.to=500it",
    )(_import)


def _import(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|WEIGHTS", help="lottery_HASH/replicate_R, or a state dict.")
    ],
    overrides: Overrides = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="File of the masks; else those beside the weights.")
    ] = None,
    at: Annotated[
        str,
        typer.Option("--at", help="The weights are those at the start of the ticket's training, or its end."),
    ] = "start",
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    from lth_cli.cli.launch import make_points, refuse_unused
    from lth_cli.config.errors import RequestError
    from lth_cli.experiments import open_lth
    from lth_cli.experiments.importing import default_name, import_open_lth, import_weights
    from lth_cli.report import show

    if at not in ("start", "end"):
        raise typer.BadParameter(f"{at!r}; accepted: start, end", param_hint="--at")
    typed = overrides or []
    refuse_unused("prune", typed)
    if source.is_dir():
        if mask is not None or at != "start":
            raise typer.BadParameter("only beside a file of weights", param_hint="--mask, --at")
        folder = open_lth.read_folder(source)
        made = open_lth.translate(folder)
        keys = [key for key in made.keys if not any(_replaces(said, key) for said in typed)]
        config = make_points("prune", [*keys, *typed], config_dir, False)[0].config
        for key in made.not_carried:
            _tell(f"not carried over: {key}")
        run = import_open_lth(folder, config, config.name or default_name(folder.path), _tell)
    elif source.is_file():
        config = make_points("prune", typed, config_dir, False)[0].config
        run = import_weights(source, mask, config, config.name or default_name(source), at, _tell)
    else:
        raise RequestError(f"there is no {source}")
    if json:
        import sys
        from json import dumps

        sys.stdout.write(dumps(show.as_json(run), indent=2) + "\n")
    else:
        show.print_result([run])


def _replaces(said: str, key: str) -> bool:
    """Whether what a person typed stands in the place of a key: the same, or the group it is in."""
    ours, theirs = (re.split(r"[=@]", text.lstrip("+~"), maxsplit=1)[0] for text in (said, key))
    return theirs == ours or theirs.startswith(f"{ours}.")


def _tell(text: str) -> None:
    typer.echo(f"lth: {text}", err=True)
