"""Many configurations composed together: Hydra works once for all that differ in plain values alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lth_cli.config import compose
from lth_cli.config.compose import Point
from lth_cli.config.errors import ConfigError
from lth_cli.config.named import packaged_configs
from lth_cli.config.steps import Duration


def load_all(
    command: str,
    combinations: Sequence[tuple[str, ...]],
    config_dir: Path | None = None,
    stored: Mapping[str, Any] | None = None,
    kept: Collection[str] = (),
) -> list[Point | ConfigError]:
    """Compose and validate every combination of overrides, in order; what is wrong stands in a point's place.

    The result is that of `compose.load` for each, or of `compose.load_over` where a stored config is given, which
    take tens of milliseconds a point. Without a stored config, combinations that differ only in plain values of
    existing keys share one composition, to which the values are then applied.
    """
    composer = _Composer(command, combinations, config_dir, stored, kept)
    found: list[Point | ConfigError] = []
    for combination in combinations:
        try:
            found.append(composer.shared(combination) or composer.alone(combination))
        except ConfigError as error:
            found.append(error)
    return found


class _Composer:
    """Remembers what it has composed, and what could not be composed."""

    def __init__(
        self,
        command: str,
        combinations: Sequence[tuple[str, ...]],
        config_dir: Path | None,
        stored: Mapping[str, Any] | None,
        kept: Collection[str],
    ) -> None:
        self._kept = kept
        self._command, self._config_dir, self._stored = command, config_dir, stored
        self._fixed = set(combinations[0]).intersection(*combinations) if combinations else set()
        self._bases: dict[tuple[str, ...], DictConfig | ConfigError | None] = {}
        self._refused: dict[str, ConfigError] = {}

    def alone(self, combination: tuple[str, ...]) -> Point:
        """A point composed by Hydra from beginning to end. Raises ConfigError."""
        if self._stored is not None:
            return compose.load_over(self._command, self._stored, combination, self._config_dir, self._kept)
        return compose.load(self._command, combination, self._config_dir)

    def shared(self, combination: tuple[str, ...]) -> Point | None:
        """A point made from the composition it shares; None where Hydra itself has to look at it.

        Raises:
            ConfigError: when the composition fails, or the values do not fit the schema.
        """
        values = [text for text in combination if text not in self._fixed and _sets_value(text, combination)]
        if not values or self._stored is not None:
            return None
        base = self._base(tuple(text for text in combination if text not in values))
        if isinstance(base, ConfigError):
            raise base
        if base is None:
            return None
        config = base.copy()
        try:
            for text in values:
                override = _parsed(text)
                key = str(override.key_or_group)
                if key in self._refused:
                    raise self._refused[key]
                if OmegaConf.is_config(OmegaConf.select(config, key)):
                    return None
                OmegaConf.update(config, key, override.value(), merge=True)
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except (ConfigKeyError, ConfigAttributeError):
            self._refuse(key, combination)
            return None
        except (OmegaConfBaseException, ValueError, TypeError):
            return None
        assert isinstance(plain, dict)
        named = {str(key): value for key, value in plain.items()}
        return Point(combination, named, compose.validate(named))

    def _base(self, overrides: tuple[str, ...]) -> DictConfig | ConfigError | None:
        if overrides not in self._bases:
            self._bases[overrides] = self._compose(overrides)
        return self._bases[overrides]

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig | ConfigError | None:
        try:
            with (
                compose.personal_configs(self._config_dir),
                initialize_config_dir(str(packaged_configs().resolve()), version_base="1.3"),
            ):
                return hydra_compose(self._command, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError):
            try:
                compose.compose(self._command, overrides, self._config_dir)
            except ConfigError as error:
                return error
            return None

    def _refuse(self, key: str, combination: tuple[str, ...]) -> None:
        """Remember the mistake of a key that does not exist, which every point of the sweep shares."""
        try:
            self.alone(combination)
        except ConfigError as error:
            if any(path == key for path, _ in error.problems):
                self._refused[key] = error


def _sets_value(text: str, combination: tuple[str, ...]) -> bool:
    """Whether an override sets one plain value that no other override of the combination touches."""
    override = _parsed(text)
    key = str(override.key_or_group)
    if override.type is not OverrideType.CHANGE or override.package is not None or "/" in key:
        return False
    for other in combination:
        if other != text:
            parsed = _parsed(other)
            theirs = str(parsed.key_or_group)
            inside = key.startswith(f"{theirs}.")
            chooses_option = inside and isinstance(parsed.value(), str)
            if not chooses_option and (inside or theirs == key or theirs.startswith(f"{key}.")):
                return False
    return not (packaged_configs() / key).is_dir()


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Override:
    """An override of one value, as `expand` returned it."""
    return OverridesParser.create().parse_override(text)


def share_rewind_points(points: Sequence[Point]) -> list[Point]:
    """Points of a sweep that differ in where they rewind to: the first to train keeps the states of all of them."""

    def alike(point: Point) -> str:
        other = ("rewind", "control", "controls", "rounds", "pruning", "name", "checkpoint")
        values = {k: v for k, v in point.config.model_dump(mode="json").items() if k not in other}
        return json.dumps(values, sort_keys=True)

    wanted: dict[str, list[Duration]] = {}
    for point in points:
        wanted.setdefault(alike(point), []).append(point.config.rewind.to)
    shared = []
    for point in points:
        checkpoint = point.config.checkpoint
        keep = list(dict.fromkeys([*checkpoint.keep, *wanted[alike(point)]]))
        if len(wanted[alike(point)]) > 1:
            checkpoint = checkpoint.model_copy(update={"keep": keep})
        config = point.config.model_copy(update={"checkpoint": checkpoint})
        shared.append(dataclasses.replace(point, config=config))
    return shared
