"""`lth train` and `lth prune`: compose, check, run, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lth_cli.cli.completion import complete_override

if TYPE_CHECKING:
    from lth_cli.store.runs import Run

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides.", autocompletion=complete_override),
]
Multirun = Annotated[
    bool, typer.Option("--multirun", "-m", help="Run every combination of a=1,2 b=range(3).")
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        metavar="N",
        help="With -m: try N quasi-random values of each range, as 'optimizer.lr=tag(log,interval(1e-4,1))'.",
    ),
]
ShowConfig = Annotated[
    str | None, typer.Option("--cfg", "-c", metavar="job|hydra|all", help="Print the config, run nothing.")
]
Info = Annotated[
    str | None,
    typer.Option("--info", metavar="all|defaults|searchpath", help="Print how the config is made."),
]
Resolve = Annotated[bool, typer.Option("--resolve", help="With --cfg: resolve interpolations.")]
Package = Annotated[str | None, typer.Option("--package", "-p", help="With --cfg: print only this part.")]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="Your own config folder; searched first.")
]
ConfigName = Annotated[
    str | None, typer.Option("--config-name", help="Primary config instead of the command's own.")
]
FromRun = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="RUN", help="Go on from a run: its config with what is typed on top, all reused."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="With --from: let the stored config name code from outside lth.")
]
Dev = Annotated[
    bool,
    typer.Option(
        "--dev", help="Try it: a few steps, a slice of the data, everything exercised, nothing kept."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands that train."""
    for kind, summary, example in (
        (
            "train",
            "Train one dense network.",
            "lth train model=resnet20 dataset=cifar10 training.length=160ep",
        ),
        (
            "prune",
            "Find a winning ticket: train, prune, rewind, repeat.",
            "lth prune model=conv2 dataset=mnist rewind.to=500it -m seed=0,1,2",
        ),
    ):
        app.command(
            kind,
            help=summary,
            epilog=f"Example: {example}",
        )(_command(kind))


def _command(kind: str) -> Any:
    def command(
        overrides: Overrides = None,
        multirun: Multirun = False,
        trials: Trials = None,
        cfg: ShowConfig = None,
        info: Info = None,
        resolve: Resolve = False,
        package: Package = None,
        config_dir: ConfigDir = None,
        config_name: ConfigName = None,
        from_run: FromRun = None,
        trust: Trust = False,
        dev: Dev = False,
        quiet: Quiet = False,
        json: Json = False,
    ) -> None:
        typed = overrides or []
        primary = config_name or kind
        like = None if from_run is None else _base(kind, from_run, typed, config_dir, trust)
        if like is not None and (cfg or info or config_name):
            raise typer.BadParameter("does not go with --cfg, --info and --config-name", param_hint="--from")
        if trials is not None and not multirun:
            raise typer.BadParameter("makes a sweep; add -m", param_hint="--trials")
        if cfg or info:
            _show_config(primary, typed, cfg, info, resolve, package, config_dir)
            return
        from lth_cli.cli.launch import launch, make_points, refuse_unused

        if dev:
            if multirun or json:
                raise typer.BadParameter(
                    "tries one config; leave out --multirun and --json", param_hint="--dev"
                )
            from lth_cli.cli.dev import try_out

            refuse_unused(kind, typed)
            try_out(kind, make_points(primary, typed, config_dir, False, like=like)[0].config, quiet)
            return
        launch(
            kind,
            primary,
            typed,
            like=like,
            config_dir=config_dir,
            multirun=multirun,
            trials=trials,
            quiet=quiet,
            as_json=json,
        )

    return command


def named_run(primary: str, name: str, typed: list[str], config_dir: Path | None) -> Run:
    """The run of a name or path, among those of the folder that was typed or is the default. Raises RequestError."""
    from lth_cli.config.compose import compose
    from lth_cli.store.runs import find_run

    places = [text for text in typed if text.startswith("runs_dir=")]
    return find_run(Path(str(compose(primary, places, config_dir)["runs_dir"])), name)


def _base(kind: str, name: str, typed: list[str], config_dir: Path | None, trust: bool) -> Run:
    """The run whose config another one takes. Raises RequestError: not there, of another kind, or not trusted."""
    from lth_cli.config.errors import RequestError
    from lth_cli.experiments.trust import check_trust

    run = named_run(kind, name, typed, config_dir)
    if "imported" in run.info:
        raise RequestError(
            f"--from: {run.name} was imported, its training cannot be gone on with; "
            f"lth rewind {run.name} retrains its masks"
        )
    if "source" in run.info:
        raise RequestError(
            f"--from: {run.name} retrained the masks of {run.info['source']['name']}; "
            f"lth rewind {run.info['source']['name']} does so again"
        )
    if not trust:
        check_trust(run)
    return run


def _show_config(
    primary: str,
    overrides: list[str],
    cfg: str | None,
    info: str | None,
    resolve: bool,
    package: str | None,
    config_dir: Path | None,
) -> None:
    from lth_cli.config.compose import show_with_hydra

    for option, value, accepted in (
        ("--cfg", cfg, ("job", "hydra", "all")),
        ("--info", info, ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    ):
        if value is not None and value not in accepted:
            raise typer.BadParameter(f"{value!r}; accepted: {', '.join(accepted)}", param_hint=option)
    flags = [*(["--cfg", cfg] if cfg else ["--info", info or "all"])]
    flags += ["--resolve"] if resolve else []
    flags += ["--package", package] if package else []
    show_with_hydra(primary, [*flags, *overrides], config_dir)
