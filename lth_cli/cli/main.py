"""The `lth` program: commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO, cast

import typer

from lth_cli.cli import (
    analyze,
    cancel,
    collecting,
    exporting,
    importing,
    keeping,
    listing,
    packing,
    reporting,
    rewinding,
    running,
    sequence,
    study,
    verify,
    watching,
)
from lth_cli.cli.startup import defer_compiler
from lth_cli.experiments import torchrun


class _Program(typer.Typer):
    """Commands whose help ends with `--debug`, which `_main` takes off the command line."""

    def command(self, *names: Any, **options: Any) -> Any:
        told = "With --debug anywhere, what fails prints its whole traceback."
        options["epilog"] = "\n\n".join([*filter(None, [options.get("epilog")]), told])
        return super().command(*names, **options)


app = _Program(
    name="lth",
    help="A laboratory for lottery-ticket research: train, prune, rewind, and never train the same step twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
running.register(app)
rewinding.register(app)
sequence.register(app)
study.register(app)
analyze.register(app)
listing.register(app)
reporting.register(app)
watching.register(app)
keeping.register(app)
cancel.register(app)
verify.register(app)
collecting.register(app)
exporting.register(app)
importing.register(app)
packing.register(app)


@app.callback(invoke_without_command=True)
def _program(
    version: bool = typer.Option(False, "--version", help="Show the version and leave.", is_eager=True),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"lth {installed('lth-cli')}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the program; under torchrun, rank 0 runs it and leads the others, which follow without a word."""
    defer_compiler()
    place = torchrun.launched()
    if place is not None and place.rank > 0:
        from lth_cli.experiments.follower import follow_launcher

        follow_launcher(place)
    try:
        _main()
    except SystemExit as leaving:
        if place is not None:
            from lth_cli.experiments.processes import dismiss

            dismiss()
        ranks = sys.modules.get("lth_cli.training.ranks")
        if ranks is not None and ranks.joined:
            ranks.leave_process(int(leaving.code or 0))
        raise


def _main() -> NoReturn:
    """Run the program. Exit codes: 0 done, 1 failed, 2 wrong request, 130 and 143 interrupted by a signal."""
    # Python's own SIGTERM skips `finally`; until a command takes over, leave through the interpreter.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    debug = "--debug" in sys.argv
    sys.stdout = cast(TextIO, _Output(sys.stdout))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        try:
            code = app(arguments, prog_name="lth", standalone_mode=False) or 0
        except SystemExit as leaving:
            code = leaving.code or 0
        sys.stdout.flush()  # here, where what goes wrong becomes a message
        sys.exit(code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except typer.TyperException as error:
        message = error.format_message()
        if message:  # a bare `lth` has shown its help
            sys.stderr.write(f"lth: {message}{_other_command(message)}\n")
        sys.exit(error.exit_code if message else 0)
    except BrokenPipeError:
        # Whoever read our output has gone; a second failure while flushing would print a traceback.
        sys.stdout = None
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever failed becomes a message
        if debug:
            traceback.print_exc()
        sys.exit(_report(error, debug))


_INSTEAD = {
    "resume": "The command that began a run goes on with it.",
    "continue": "The command that began a run goes on with it.",
    "run": "Type lth train or lth prune.",
    "eval": "lth show RUN has the results; lth analyze RUN asks further.",
    "evaluate": "lth show RUN has the results; lth analyze RUN asks further.",
    "test": "lth show RUN has the results; lth analyze RUN asks further.",
    "plot": "lth show RUN and lth compare RUN... draw figures.",
    "sweep": "lth train -m and lth prune -m make a run of each of KEY=1,2.",
    "status": "Type lth ls or lth watch.",
    "list": "Type lth ls.",
    "delete": "Type lth rm.",
    "finetune": "Type lth rewind RUN rewind.technique=fine_tune.",
    "distill": "Type lth train distillation.teachers=..., or lth sequence.",
}


def _other_command(message: str) -> str:
    """What to type in the place of a command that does not exist."""
    match = re.fullmatch(r"No such command '([^']*)'\.", message)
    if match is None:
        return ""
    known = [command.name for command in app.registered_commands if command.name]
    return " " + _INSTEAD.get(match[1].lower(), f"There are: {', '.join(known)}.")


class _Output:
    """Standard output that names itself where it takes no more, as on a full disk."""

    name = "standard output"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = self.name
            raise


_NO_MEMORY = re.compile(
    r"failed to map segment|cannot allocate memory|can't allocate memory|not enough memory|can't start new thread",
    re.IGNORECASE,
)


def _no_memory(error: Exception) -> bool:
    """Whether memory ran out: torch and the loader of shared libraries raise errors of their own for it."""
    told = isinstance(error, ImportError | RuntimeError | OSError) and _NO_MEMORY.search(str(error))
    return isinstance(error, MemoryError) or bool(told)


def _report_memory(error: Exception) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    allowed = "" if limit == resource.RLIM_INFINITY else f" (ulimit -v allows {limit // 2**20:,} MiB)"
    reason = (str(error).splitlines() or ["it could not be had"])[0] or "it could not be had"
    sys.stderr.write(f"lth: not enough memory{allowed}: {reason}\n")


def _report(error: Exception, debug: bool) -> int:
    from lth_cli.config import sources
    from lth_cli.config.errors import LthError, RequestError

    if isinstance(error, LthError):
        for line in str(error).splitlines():
            sys.stderr.write(f"lth: {line}\n")
        return 2 if isinstance(error, RequestError) else 1
    if _no_memory(error):
        _report_memory(error)
        return 1
    if isinstance(error, OSError) and error.filename == _Output.name:
        sys.stdout = None  # or the interpreter tries once more
        sys.stderr.write(
            f"lth: cannot write to standard output: {error.strerror}; work that was done is stored, "
            "lth ls and lth show tell of it\n"
        )
        return 1
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"lth: {where}{error.strerror}\n")
        return 1
    if not debug:
        told = f"{type(error).__name__}: {error}"
        own = sources.own_frame(error)
        if own is not None:
            sys.stderr.write(f"lth: {own.filename}:{own.lineno}: {told}\n")
            sys.stderr.write(f"lth: in {own.name}: {own.line}\nlth: --debug shows the whole way there\n")
        else:
            sys.stderr.write(f"lth: {told}\nlth: this is a fault in lth; --debug shows where\n")
    return 1
