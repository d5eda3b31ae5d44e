"""Functions and classes named by import path in a config, their arguments checked against their signatures."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from lth_cli.config.errors import ConfigError
from lth_cli.config.sources import where_own


def locate(path: str, where: str) -> Callable[..., Any]:
    """Import the function or class at a dotted path.

    Args:
        path: for example `torch.optim.SGD`.
        where: config path to name in the error.

    Raises:
        ConfigError: when there is no such module or name, or it cannot be called.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ConfigError((where, f"{path!r} is not an import path; write package.module.name"))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs a person's own code, which may fail in any way
        raise ConfigError((where, f"cannot import {module_name!r}: {error}{where_own(error)}")) from error
    found = getattr(module, name, None)
    if found is None:
        public = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(name, public, n=3)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise ConfigError((where, f"{module_name!r} has no {name!r}{hint}"))
    if not callable(found):
        raise ConfigError((where, f"{path!r} cannot be called"))
    return typing.cast(Callable[..., Any], found)


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], where: str, supplied: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check keyword arguments from a config against a function's signature and annotations.

    Args:
        function: what will be called.
        arguments: keys and values as they stand in the config section.
        where: config path of that section.
        supplied: names of parameters the program itself passes; a config may not set them.

    Returns:
        The arguments, converted to the annotated types (step durations, tuples).

    Raises:
        ConfigError: naming every unknown, missing or ill-typed argument by its config path.
    """
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise ConfigError((f"{where}._target_", f"its arguments cannot be known: {error}")) from error
    hints = _hints(function)
    fields: dict[str, Any] = {}
    open_ended = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        if parameter.name in (*supplied, "self") or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
            parameter.POSITIONAL_ONLY,
        ):
            continue
        annotation = hints.get(parameter.name, Any)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    problems: list[tuple[str, str]] = []
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in fields:
            try:
                checked[name] = _adapter(fields[name][0]).validate_python(value)
            except pydantic.ValidationError as error:
                problems += [
                    (".".join([where, name, *_location(e["loc"])]), f"{e['msg']}, got {e['input']!r}")
                    for e in error.errors()[:3]
                ]
        elif open_ended and name not in supplied:
            checked[name] = value
        else:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.append(
                (f"{where}.{name}", f"unknown key; {hint}accepted: {', '.join(fields) or 'none'}")
            )
    problems += [
        (f"{where}.{name}", "is required")
        for name, (_, default) in fields.items()
        if default is ... and name not in arguments
    ]
    if problems:
        raise ConfigError(*problems)
    return checked


def with_defaults(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as they stand in a config, and what the function takes where one is left out.

    Args:
        function: what will be called with them.
        arguments: keys and values, plain.
    """
    parameters = inspect.signature(function).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    return plain | dict(arguments)


def first_two(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names under which a function takes the outputs of a model and the batch."""
    return tuple(inspect.signature(function).parameters)[:2]


def _location(parts: tuple[int | str, ...]) -> list[str]:
    """Only list positions help a person; names of union branches do not."""
    return [str(part) for part in parts if isinstance(part, int)]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(
            function.__init__ if inspect.isclass(function) else function,
            include_extras=True,
        )
    except (NameError, TypeError):  # annotations of foreign code may not resolve; names are still checked
        return {}


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    strict = pydantic.ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False, strict=True)
    try:
        return pydantic.TypeAdapter(annotation, config=strict)
    except pydantic.errors.PydanticSchemaGenerationError:
        return pydantic.TypeAdapter(Any)
    except pydantic.errors.PydanticUserError:  # a dataclass, such as a duration, brings its own config
        return pydantic.TypeAdapter(annotation)
