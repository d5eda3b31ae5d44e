"""`lth analyze`: questions asked of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lth_cli.cli.completion import complete_analysis
from lth_cli.cli.running import ConfigDir, Json, Multirun, Quiet

if TYPE_CHECKING:
    from lth_cli.analyses.request import Study
    from lth_cli.analyses.schema import Analyze
    from lth_cli.cli.signals import Signals
    from lth_cli.store.analyses import StoredAnalysis

_EXAMPLES = (
    "Examples: lth analyze analysis=list   lth analyze RUN analysis=connectivity analysis.states=[0@end,3@end]   "
    "lth analyze RUN RUN RUN analysis=instability analysis.at=[0,100it,500it]"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "analyze",
        help="Ask a question of a finished run, or of several that differ by seed. The answer is stored in the "
        "first run and read from there when asked again.",
        epilog=_EXAMPLES,
    )(_analyze)


def _analyze(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN... [KEY=VALUE]...",
            help="Names or paths of runs, and Hydra overrides; analysis=list shows what can be asked.",
            autocompletion=complete_analysis,
        ),
    ] = None,
    multirun: Multirun = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let stored configs of runs name code from outside lth.")
    ] = False,
    cfg: Annotated[
        str | None, typer.Option("--cfg", "-c", metavar="job", help="Print the config, run nothing.")
    ] = None,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    overrides = [word for word in words or [] if "=" in word or word.startswith("~")]
    names = [word for word in words or [] if word not in overrides]
    if "analysis=list" in overrides:
        _list(config_dir)
        return
    if cfg is not None:
        _print_config(cfg, overrides, config_dir)
        return

    import json as json_library

    from lth_cli.analyses.catalogue import prepare
    from lth_cli.analyses.request import Request
    from lth_cli.cli.signals import Signals
    from lth_cli.config.errors import LthError, RequestError
    from lth_cli.report.analyses import as_json, print_answer, print_points

    if not names:
        raise RequestError("name a run to ask about: lth analyze RUN analysis=NAME; lth ls shows the runs")
    asked = points(overrides, config_dir, multirun)
    studies = [prepare(Request.of(config, names, trust)) for _, config in asked]
    found: list[StoredAnalysis | None] = []
    failures: list[LthError] = []
    with Signals() as signals:
        for (_, config), study in zip(asked, studies, strict=True):
            try:
                found.append(answered(study, config, signals, quiet or json))
            except LthError as error:
                if len(asked) == 1 or signals.received:
                    raise
                typer.echo(f"lth: {error}", err=True)
                failures.append(error)
                found.append(None)
    if json:
        told = [None if stored is None else as_json(stored) for stored in found]
        typer.echo(json_library.dumps(told if multirun else told[0], indent=2))
    elif multirun:
        print_points(list(zip((" ".join(typed) for typed, _ in asked), found, strict=True)))
    else:
        for stored in filter(None, found):  # the only one
            print_answer(stored, studies[0].not_shown)
    if signals.received:
        raise typer.Exit(signals.exit_code)
    if failures:
        raise typer.Exit(1)


def points(
    overrides: Sequence[str], config_dir: Path | None, multirun: bool
) -> list[tuple[tuple[str, ...], Analyze]]:
    """Every point composed and validated; all mistakes of all points in one error."""
    from lth_cli.analyses.schema import Analyze, known_keys
    from lth_cli.config.compose import compose, expand, validate_as
    from lth_cli.config.errors import ConfigError

    keys = [key for key, _ in known_keys()]
    made: list[tuple[tuple[str, ...], Analyze]] = []
    problems: list[tuple[str, str]] = []
    for combination in expand(overrides) if multirun else [tuple(overrides)]:
        try:
            values = compose("analyze", combination, config_dir, keys)
            made.append((combination, validate_as(Analyze, values, keys)))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(*problems)
    return made


def answered(study: Study, config: Analyze, signals: Signals, quiet: bool) -> StoredAnalysis:
    """The answer of a study: read where it is stored whole, worked out where not."""
    from lth_cli.analyses.catalogue import drawing
    from lth_cli.analyses.work import open_work
    from lth_cli.cli.progress import make_observer
    from lth_cli.report.analyses import draw

    stored = study.stored
    if stored.finished and stored.tidy and not stored.faults():
        typer.echo(f"lth: {stored.path.name} is answered already", err=True)
        return stored
    with (
        make_observer(study.parts, stored.path.name, quiet) as observer,
        open_work(stored, study.identity, config, observer, signals.stop) as work,
        signals.working(work),
    ):
        faults = stored.faults() if stored.finished else []
        for path, fault in faults:
            observer.message(f"{path} is damaged: {fault}; the analysis is made anew")
        if faults or not stored.finished:
            answer = study.answer(work)
            tables = stored.write_tables(answer.tables)
            draw(drawing(study.name), stored, answer.tables, answer.summary)
            result = {
                **study.labels,
                "asked": study.asked,
                "summary": answer.summary,
                "headline": answer.headline,
                "tables": tables,
                "steps_trained": work.trained,
                "steps_reused": work.reused,
            }
            stored.finish(study.name, study.identity, result)
        stored.drop_progress()
    return stored


def _list(config_dir: Path | None) -> None:
    """One line an analysis: the first sentence of its config file."""
    from lth_cli.config.named import packaged_configs

    folders = [packaged_configs(), *([config_dir] if config_dir else [])]
    paths = {path.stem: path for folder in folders for path in sorted((folder / "analysis").glob("*.yaml"))}
    for name, path in sorted(paths.items()):
        comment: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# ") or line.startswith("#   "):
                break
            comment.append(line.removeprefix("# "))
        typer.echo(f"{name:<14} {' '.join(comment)}")


def _print_config(cfg: str, overrides: Sequence[str], config_dir: Path | None) -> None:
    from omegaconf import OmegaConf

    from lth_cli.analyses.schema import known_keys
    from lth_cli.config.compose import compose

    if cfg != "job":
        raise typer.BadParameter(f"{cfg!r}; accepted: job", param_hint="--cfg")
    values = compose("analyze", overrides, config_dir, [key for key, _ in known_keys()])
    typer.echo(OmegaConf.to_yaml(OmegaConf.create(values)), nl=False)
