"""`lth rewind`: retrain the masks of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from lth_cli.cli.running import (
    ConfigDir,
    Json,
    Multirun,
    Overrides,
    Package,
    Quiet,
    ShowConfig,
    Trials,
    named_run,
)

_EXAMPLES = (
    "Examples: lth rewind RUN -m rewind.to=0,100it,500it,2ep   lth rewind RUN rounds=3,5-8 control=reinit   "
    "lth rewind RUN dataset=kmnist"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "rewind",
        help="Retrain the masks of a finished run, from any point of its dense training, under any control. "
        "What is not overridden stays as it was in that run.",
        epilog=_EXAMPLES,
    )(_rewind)


def _rewind(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of the run with the masks.")],
    overrides: Overrides = None,
    multirun: Multirun = False,
    trials: Trials = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the stored config of the run name code from outside lth.")
    ] = False,
    cfg: ShowConfig = None,
    package: Package = None,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    from lth_cli.cli.launch import launch, make_points
    from lth_cli.config.compose import quote_rounds
    from lth_cli.experiments.trust import check_trust

    typed = quote_rounds(overrides or [])
    source = named_run("rewind", run, typed, config_dir)
    if cfg is not None:
        if cfg != "job":
            raise typer.BadParameter(f"{cfg!r}; accepted: job", param_hint="--cfg")
        _print_config(make_points("rewind", typed, config_dir, False, source)[0].values, package)
        return
    if trials is not None and not multirun:
        raise typer.BadParameter("makes a sweep; add -m", param_hint="--trials")
    if not trust:
        check_trust(source)
    launch(
        "rewind",
        "rewind",
        typed,
        source=source,
        config_dir=config_dir,
        multirun=multirun,
        trials=trials,
        quiet=quiet,
        as_json=json,
    )


def _print_config(values: dict[str, object], package: str | None) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create(values)
    chosen = config if package is None else OmegaConf.select(config, package)
    if chosen is None:
        raise typer.BadParameter(f"{package!r}; there is no such section", param_hint="--package")
    typer.echo(OmegaConf.to_yaml(chosen) if OmegaConf.is_config(chosen) else chosen, nl=False)
