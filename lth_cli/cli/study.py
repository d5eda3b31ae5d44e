"""`lth study`: a paper's experiments in one command, its published numbers beside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lth_cli.cli.running import ConfigDir, Json, Quiet

if TYPE_CHECKING:
    from lth_cli.cli.studying import Estimate, Runner
    from lth_cli.studies.report import Verdict

_MAIN = "import sys; from lth_cli.cli.main import main; sys.exit(main())"


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    from lth_cli.studies.finding import names

    return [name for name in names(ctx.params.get("config_dir")) if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A study, or the path of one's YAML.", autocompletion=_complete),
]
Typed = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="profile=NAME; KEY=VALUE for every step that uses the key; STEP:KEY=VALUE for one.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(
        help="A paper in one command: its steps trained or read, its tables with the published numbers beside, its "
        "claim and whether it held.",
        no_args_is_help=True,
        epilog="Example: lth study show lmc_lth   lth study run lmc_lth profile=quick seed=0,1,2",
    )
    group.command("list", help="Every study, a line each.")(_list)
    group.command("show", help="What a study would do: steps, what is there, time and disk. Runs nothing.")(
        _show
    )
    group.command("run", help="Run what is missing of a study, then write its report.")(_run)
    group.command("report", help="Write the report of what is there.")(_report)
    app.add_typer(group, name="study")


def _list(config_dir: ConfigDir = None) -> None:
    from lth_cli.config.errors import LthError
    from lth_cli.studies.finding import load, paths

    for name, path in sorted(paths(config_dir).items()):
        try:
            study = load(name, path).study
            typer.echo(f"{name:<18} {study.about} ({', '.join(study.profiles)})")
        except LthError as error:
            typer.echo(f"{name:<18} cannot be read: {error}")


def _runner(name: str, typed: list[str] | None, config_dir: Path | None, quiet: bool) -> Runner:
    from lth_cli.cli.studying import Runner
    from lth_cli.studies.finding import find
    from lth_cli.studies.plan import make_plan

    return Runner(make_plan(find(name, config_dir), typed or []), config_dir, quiet)


def _show(name: Name, typed: Typed = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    runner = _runner(name, typed, config_dir, quiet=True)
    checked = runner.check()
    estimates = runner.estimates(checked)
    if json:
        import json as json_library

        told = {"folder": str(runner.folder), "steps": {key: vars(one) for key, one in estimates.items()}}
        typer.echo(json_library.dumps(told, indent=2))
        return
    study, plan = runner.plan.found.study, runner.plan
    typer.echo(f"{plan.found.name}: {study.about}\n{study.paper}\nClaim: {study.claim}\n")
    for profile, size in study.profiles.items():
        chosen = "*" if profile == plan.profile else " "
        typer.echo(f"{chosen} profile={profile}  {size.about}".rstrip())
    if study.needs:
        typer.echo(f"Data: {study.needs}")
    typer.echo("")
    _print_estimates(runner, estimates)


def _print_estimates(runner: Runner, estimates: dict[str, Estimate]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading, right in (
        ("step", False),
        ("command", False),
        ("from", False),
        ("points", True),
        ("there", True),
        ("to train", True),
        ("steps", True),
    ):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for step in runner.plan.steps:
        one = estimates[step.name]
        training = step.command != "analyze"
        table.add_row(
            step.name,
            step.command,
            ", ".join(runner.plan.found.study.steps[step.name].builds_on),
            f"{one.points}{' or more' if one.open else ''}",
            str(one.done),
            f"{one.trainings:,}" if training else "",
            f"{one.steps:,}" if training else "",
        )
    Console().print(table)
    found = estimates.values()
    trainings, steps = sum(one.trainings for one in found), sum(one.steps for one in found)
    typer.echo(
        f"{sum(one.done for one in found)} of {sum(one.points for one in found)} points are there; "
        f"{trainings:,} trainings left, {steps:,} steps at most (what points share is trained once)."
    )
    seconds = [one.seconds for one in found if one.steps]
    if trainings:
        known = all(one is not None for one in seconds)
        time = (
            _duration(sum(one or 0.0 for one in seconds))
            if known
            else "unknown, as nothing of the kind ran here"
        )
        typer.echo(
            f"Time: {time}. Disk: {_size(sum(one.bytes for one in found))} at most. Questions come on top."
        )
    typer.echo(f"Report: {runner.folder / 'report.md'}")


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"about {seconds / length:.2g} {unit}"
    return "under a minute" if seconds < 60 else f"about {seconds:.0f} s"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _run(
    name: Name,
    typed: Typed = None,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    json: Json = False,
    goes_on: Annotated[bool, typer.Option("--goes-on", hidden=True)] = False,
) -> None:
    runner = _runner(name, typed, config_dir, quiet or json)
    if not runner.run(runner.check(), again=not goes_on):
        from lth_cli.config.errors import LthError

        told = "points run on the cluster (lth ls --sweep shows them)"
        try:
            job = runner.go_on_later(_this_command())
            told += f"; job {job} goes on with the study once they have ended"
        except LthError as error:
            told += f"; once they have ended, the same command goes on ({error})"
        typer.echo(f"lth: {told}", err=True)
    _tell(runner, json)


def _this_command() -> list[str]:
    """How to run this command again, on another machine of a cluster, without submitting what ended there."""
    arguments = [text for text in sys.argv[1:] if text != "--goes-on"]
    return [sys.executable, "-P", "-c", _MAIN, *arguments, "--goes-on"]


def _report(name: Name, typed: Typed = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    runner = _runner(name, typed, config_dir, quiet=True)
    runner.check()
    _tell(runner, json)


def _tell(runner: Runner, json: bool) -> None:
    path, verdicts, there, total = runner.write_report()
    if json:
        typer.echo((path.parent / "study.json").read_text(encoding="utf-8"), nl=False)
        return
    text = path.read_text(encoding="utf-8")
    typer.echo(text)
    _tell_verdicts(verdicts)
    if there < total:
        typer.echo(
            f"Only {there} of {total} points are there; lth study run {runner.plan.found.name} goes on."
        )
    typer.echo(f"Report: {path}")


def _tell_verdicts(verdicts: list[Verdict]) -> None:
    colours: dict[Any, str | None] = {True: typer.colors.GREEN, False: typer.colors.RED, None: None}
    for one in verdicts:
        typer.secho(one.told, fg=colours[one.held])
