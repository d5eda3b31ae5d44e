"""From Hydra's config groups and a person's overrides to one validated `Config`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin

import pydantic
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lth_cli.config.bombs import refuse_bombs
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.named import packaged_configs
from lth_cli.config.schema import Config, fields
from lth_cli.config.trials import Range, drawn_trials
from lth_cli.config.values import FORMS

_MOST_POINTS = 10_000
_IN_TRAINING = "sparse_training"


class _PersonalConfigs(SearchPathPlugin):
    """Searches a person's own config folder before the packaged one, so that it can add to it or shadow it."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("personal", f"file://{self.folder}", anchor="main")


@contextmanager
def personal_configs(folder: Path | None) -> Iterator[None]:
    """Put a person's config folder (`--config-dir`) in front of the packaged one.

    Raises:
        RequestError: when the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise RequestError(f"--config-dir: there is no folder {str(folder)!r}")
    if folder is not None:
        refuse_bombs(folder, [path.name for path in packaged_configs().iterdir() if path.is_dir()])
    if _PersonalConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(_PersonalConfigs)
    _PersonalConfigs.folder = folder.resolve() if folder is not None else None
    try:
        yield
    finally:
        _PersonalConfigs.folder = None


def compose(
    command: str, overrides: Sequence[str], config_dir: Path | None = None, known: Iterable[str] | None = None
) -> dict[str, Any]:
    """Compose the primary config of a command with overrides into plain, resolved values.

    Args:
        command: name of the primary config.
        overrides: what the person typed.
        config_dir: the person's own config folder.
        known: keys to suggest for one that does not exist; None takes those of `Config`.

    Raises:
        ConfigError: when an override does not parse, names an unknown group, option or key, or leaves a value missing.
    """
    check_override_syntax(overrides)
    try:
        with (
            personal_configs(config_dir),
            initialize_config_dir(str(packaged_configs().resolve()), version_base="1.3"),
        ):
            composed = hydra_compose(command, overrides=list(overrides))
            container = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, OSError) as error:
        # OSError: what OmegaConf raises for a file that holds no mapping
        raise ConfigError(_explain(error, known)) from error
    except RecursionError:
        raise ConfigError(("", "the overrides are nested too deeply")) from None
    if not isinstance(container, dict):
        raise ConfigError(("", f"the config {command!r} is not a mapping"))
    return {str(key): value for key, value in container.items()}


# Of a stored config, what belongs to the place it ran at or to what was asked of it there.
_NOT_INHERITED = ("name", "runs_dir", "data", "checkpoint", "controls", "rounds", "control", "launcher")
_STORED = "_lth_stored"


def load_over(
    command: str,
    stored: Mapping[str, Any],
    overrides: Sequence[str],
    config_dir: Path | None = None,
    kept: Collection[str] = (),
) -> Point:
    """A stored config with overrides on top: what is not overridden stays as stored.

    An option of a config group (`optimizer=sgd`) replaces its whole section. Places, controls and rounds are not
    taken from the stored config but from the primary config of the command, except for those `kept`.

    Raises:
        ConfigError: as `compose` and `validate`; also when the stored config is not valid.
    """
    check_override_syntax(overrides)
    groups = dict(choice for choice in map(_group_choice, overrides) if choice is not None)
    if "experiment" in groups:
        raise ConfigError(
            ("experiment", "describes a whole run, and this one has a config already; override its parts")
        )
    values = validate(stored).model_dump(mode="json")
    root = values["data"]["root"]
    fresh = compose(command, [], config_dir)
    values |= {key: fresh[key] for key in _NOT_INHERITED if key in fresh and key not in kept}
    values["data"] = {**values["data"], "root": values["data"]["root"] or root}
    others = {key: _escaped(value) for key, value in values.items() if key not in groups}
    defaults = ["_self_", *({group: option} for group, option in groups.items())]
    ConfigStore.instance().store(name=_STORED, node={"defaults": defaults, **others})
    composed = compose(_STORED, overrides, config_dir)
    return Point(tuple(overrides), composed, validate(composed))


def _group_choice(override: str) -> tuple[str, str] | None:
    parsed = OverridesParser.create().parse_override(override)
    key, value = parsed.key_or_group or "", parsed.value()
    folders = [packaged_configs(), *([_PersonalConfigs.folder] if _PersonalConfigs.folder else [])]
    plain = parsed.package is None and not parsed.is_delete() and not parsed.is_add()
    if plain and isinstance(value, str) and any((folder / key).is_dir() for folder in folders):
        return key, value
    return None


def _escaped(value: Any) -> Any:
    """Plain values as they are: what looks like an interpolation in a stored config is text."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list) else value


def quote_rounds(overrides: Sequence[str]) -> list[str]:
    """Write `rounds=3,5-8` so that Hydra takes it for one value, which without quotes would be a sweep."""
    return [
        f'{match[1]}"{match[2].strip()}"'
        if (match := re.fullmatch(r"((?:controls\.)?rounds=)([\d\s,-]*,[\d\s,-]*)", o))
        else o
        for o in overrides
    ]


def check_override_syntax(overrides: Sequence[str]) -> None:
    """Refuse overrides outside Hydra's grammar, and those that would reach into Hydra itself."""
    problems = []
    for override in overrides:
        try:
            parsed = OverridesParser.create().parse_override(override)
        except (HydraException, RecursionError, ValueError):
            problems.append((repr(override), "is not an override; write KEY=VALUE, for example seed=1"))
            continue
        if not parsed.key_or_group:
            problems.append((repr(override), "names no key; write KEY=VALUE, for example seed=1"))
        elif parsed.key_or_group.split(".")[0].split("/")[0] in ("hydra", "_target_"):
            problems.append((repr(override), "cannot be set from here"))
        elif _names_no_option(parsed):
            problems.append((str(parsed.key_or_group), "is a config group; it takes the name of one option"))
    if problems:
        raise ConfigError(*problems)


def _names_no_option(parsed: Override) -> bool:
    group = packaged_configs() / (parsed.key_or_group or "").lstrip("/")
    return (
        group.is_dir()
        and not parsed.is_delete()
        and not parsed.is_sweep_override()
        and not isinstance(parsed.value(), str)
    )


def _explain(error: Exception, known: Iterable[str] | None = None) -> tuple[str, str]:
    """One line for a person: the config path where it went wrong, and what would work."""
    text = str(error)
    key = getattr(error, "full_key", None) or ""
    if match := re.search(r"Could not override '([^']+)'", text):
        known_fields = dict(fields()) if known is None else {}
        if match[1] in known_fields:
            if get_origin(known_fields[match[1]].annotation) is dict:
                return match[1], f"keys are added to it with a plus: '+{match[1]}={{KEY: VALUE}}'"
            group = match[1].partition(".")[0]
            return match[1], f"the chosen {group} has no such key; {group}=OPTION chooses another"
        return match[1], f"unknown key{_close_keys(match[1], known)}; lth COMMAND --cfg job shows every key"
    if match := re.search(
        r"Could not find '([^']+)'\s*(?:Available options in '([^']+)':((?:\s*\n\t.*)*))?", text
    ):
        group, _, option = match[1].rpartition("/")
        options = (match[3] or "").split()
        return group, f"there is no option {option!r}{_elsewhere(group, option, options)}" + (
            f"; accepted: {', '.join(options)}" if options else ""
        )
    if match := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        return match[1], f"{match[2]} are several values; add -m, which makes a run of each"
    first = re.sub(
        r"\s+", " ", text.split("\n    full_key", maxsplit=1)[0].split("\nSee https", maxsplit=1)[0]
    ).strip()
    return str(key), "needs a value" if "Missing mandatory value" in first else first


def _elsewhere(group: str, option: str, options: Sequence[str]) -> str:
    """What was meant, where that can be told: another spelling, or something that goes by another way."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in options}
    typed = re.sub(r"[^a-z0-9]", "", option.lower())
    close = [typed] if typed in plain else difflib.get_close_matches(typed, plain, n=3, cutoff=0.75)
    if close:
        return f" (did you mean {' or '.join(f'{group}={plain[name]}' for name in close)}?)"
    if group == "dataset":
        return "; images in folders are read by dataset=image_folder, arrays of your own by dataset._target_="
    if group == "model":
        return "; model=torchvision model.name= has more, and model._target_= takes one of your own"
    return _in_training(group, option)


def _in_training(group: str, option: str) -> str:
    """Methods that change masks within a training are no options of `pruning`."""
    known = {path.stem for path in (packaged_configs() / _IN_TRAINING).glob("*.yaml")} - {"none"}
    if group != "pruning" or option not in known:
        return ""
    return f", which changes masks within one training: lth train {_IN_TRAINING}={option}"


def _close_keys(key: str, known: Iterable[str] | None = None) -> str:
    paths = sorted({path for path, _ in fields()} if known is None else set(known))
    ends: dict[str, list[str]] = {}
    for path in paths:
        ends.setdefault(path.rpartition(".")[2], []).append(path)
    if (end := ends.get(key)) is not None:
        end.sort(key=lambda path: (path.count("."), not path.startswith("training.")))
        return f"; write {' or '.join(end[:3])}"
    close = difflib.get_close_matches(key, [*paths, *ends], n=2)
    full = dict.fromkeys(path for name in close for path in ends.get(name, [name])[:2])
    return f"; close to it: {', '.join(full)}" if full else ""


def validate(values: Mapping[str, Any]) -> Config:
    """Check plain values against the schema.

    Raises:
        ConfigError: listing every mistake with its config path.
    """
    return validate_as(Config, values)


_Model = TypeVar("_Model", bound=pydantic.BaseModel)


def validate_as(model: type[_Model], values: Mapping[str, Any], known: Iterable[str] | None = None) -> _Model:
    """Check plain values against a schema; `known` as in `compose`.

    Raises:
        ConfigError: listing every mistake with its config path.
    """
    if large := list(_beyond_64_bits(values)):
        raise ConfigError(*((path, "is larger than any number can be here") for path in large))
    try:
        return model.model_validate(dict(values))
    except pydantic.ValidationError as error:
        # A field that may be one of several types has a complaint of each: one line names them all.
        merged: dict[str, list[str]] = {}
        for path, message in (
            _problem(values, {**detail, "loc": _location(model, detail["loc"])}, known)
            for detail in error.errors()
        ):
            merged.setdefault(path, []).append(message)
        problems = ((path, _alternatives(messages)) for path, messages in merged.items())
        raise ConfigError(*problems) from error


def _beyond_64_bits(values: Any, path: str = "") -> Iterator[str]:
    """Config paths of integers that torch and NumPy cannot take, wherever they may be passed on."""
    if isinstance(values, int) and not -(2**63) <= values < 2**63:
        yield path
    elif isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _beyond_64_bits(value, f"{path}.{key}" if path else str(key))


def _location(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without the tag that follows a field which is one of several sections: it may be the name of a key too."""
    field = model.model_fields.get(str(location[0])) if location else None
    return (location[0], *location[2:]) if field is not None and field.discriminator else location


def _alternatives(messages: list[str]) -> str:
    *first, last = messages
    return "; or ".join([*(message.rpartition(", got ")[0] or message for message in first), last])


def _problem(
    values: Mapping[str, Any], detail: dict[str, Any], known: Iterable[str] | None
) -> tuple[str, str]:
    """The config path of a schema error (without pydantic's union branches) and its message with the value seen."""
    path: list[str] = []
    here: Any = values
    for part in detail["loc"]:
        if isinstance(here, Mapping) and (part in here or detail["type"] in ("missing", "extra_forbidden")):
            path.append(str(part))
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            path.append(str(part))
            here = here[part] if part < len(here) else None
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "string_pattern_mismatch":
        message = FORMS.get(detail["ctx"]["pattern"], message)
    if detail["type"] == "extra_forbidden":
        message = "unknown key" + _close_keys(".".join(path), known)
    elif detail["type"] == "missing":
        message = "is required"
    elif path and not isinstance(detail["input"], dict):
        message += f", got {detail['input']!r}"
    return ".".join(path), message


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep.

    Attributes:
        overrides: what the person typed, sweeps replaced by one value each.
        values: the composed config, plain and resolved.
        config: the same, validated.
    """

    overrides: tuple[str, ...]
    values: dict[str, Any]
    config: Config


def load(command: str, overrides: Sequence[str], config_dir: Path | None = None) -> Point:
    """Compose and validate one configuration."""
    values = compose(command, overrides, config_dir)
    return Point(tuple(overrides), values, validate(values))


def expand(overrides: Sequence[str], trials: int | None = None) -> list[tuple[str, ...]]:
    """The points of a sweep: the product of every `a=1,2`, `b=range(3)`, `c=choice(x,y)`, first key slowest.

    Keys that are given a range, `a=interval(0,1)`, are tried together at quasi-random values in it, for every point of
    the others.

    Args:
        overrides: as typed.
        trials: how many values of each range are tried.

    Raises:
        ConfigError: for overrides outside Hydra's grammar, sweeps without points or whose points cannot be listed,
            ranges without a number of trials or the reverse, or a sweep of more than 10,000 points.
    """
    check_override_syntax(overrides)
    points: list[tuple[str, ...]] = [()]
    ranges: dict[str, Range] = {}
    for override in overrides:
        parsed = OverridesParser.create().parse_override(override)
        key, options = parsed.get_key_element(), [override]
        if parsed.is_interval_sweep() and trials is not None:
            ranges[override] = Range.parse(key, override.partition("=")[2])
        elif parsed.is_interval_sweep():
            raise ConfigError((override, "is a range; say how many values of it to try: --trials 20"))
        elif parsed.is_sweep_override():
            options = _options(override, parsed)
        if len(points) * len(options) * (trials or 1) > _MOST_POINTS:
            raise ConfigError((override, f"the sweep has more than {_MOST_POINTS} points"))
        points = [(*point, option) for point in points for option in options]
    if trials is None:
        return points
    if not ranges:
        raise ConfigError(
            ("--trials", "needs a range to try, such as 'optimizer.lr=tag(log,interval(1e-4,1))'")
        )
    return [
        tuple(f"{text.partition('=')[0]}={values[text]}" if text in values else text for text in point)
        for point in points
        for values in drawn_trials(ranges, trials)
    ]


def _options(text: str, override: Override) -> list[str]:
    """A swept override with each of its values in turn. Raises ConfigError."""
    prefix = override.get_key_element()
    try:
        options = [f"{prefix}={value}" for value in override.sweep_string_iterator()]
    except HydraException:
        raise ConfigError(
            (text, "has no points that can be listed; write the values, as in choice(0.1,0.2) or range(0,5)")
        ) from None
    if not options:
        raise ConfigError((text, "is a sweep without a single value"))
    return options


def show_with_hydra(command: str, arguments: Sequence[str], config_dir: Path | None) -> None:
    """Let Hydra itself print (`--cfg`, `--info`), through its own entry point, which reads `sys.argv`.

    Raises:
        ConfigError: as `compose`.
    """
    import sys

    import hydra

    check_override_syntax([a for a in arguments if not a.startswith("-") and "=" in a])
    before = sys.argv
    sys.argv = ["lth", *arguments]
    try:
        with personal_configs(config_dir):
            hydra.main(
                version_base="1.3", config_path=str(packaged_configs().resolve()), config_name=command
            )(_nothing)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    finally:
        sys.argv = before


def _nothing(_: Any) -> None:
    """The task behind `--cfg` and `--info`, which print without running it."""
