"""Studies by name: packaged ones, and a person's own in the folder of `--config-dir` or named by path."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_cli.config.compose import validate_as
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.named import packaged_configs
from lth_cli.store.files import Damaged
from lth_cli.store.yamls import read_yaml
from lth_cli.studies.schema import Study


@dataclass(frozen=True)
class Found:
    """A study and where it lies.

    Attributes:
        name: of the study.
        path: of its YAML.
        study: what that says.
    """

    name: str
    path: Path
    study: Study


def paths(config_dir: Path | None) -> dict[str, Path]:
    """Every study by name; a person's own shadow packaged ones."""
    found: dict[str, Path] = {}
    for folder in (packaged_configs(), *([config_dir] if config_dir else [])):
        for path in sorted((folder / "study").glob("*.yaml")):
            found[path.stem] = path
        for path in sorted((folder / "study").glob("*/study.yaml")):
            found[path.parent.name] = path
    return found


def find(name: str, config_dir: Path | None) -> Found:
    """The study of a name, a YAML file, or a folder with study.yaml.

    Raises:
        RequestError: there is none; names close ones.
        ConfigError: its YAML is not that of a study.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load(path.parent.resolve().name if path.stem == "study" else path.stem, path)
    if (path / "study.yaml").is_file():
        return load(path.resolve().name, path / "study.yaml")
    known = paths(config_dir)
    if name in known:
        return load(name, known[name])
    close = difflib.get_close_matches(name, known, n=3) or sorted(known)
    raise RequestError(f"no study {name!r}; there are: {', '.join(close)}; or give the path of a YAML")


def load(name: str, path: Path) -> Found:
    """Read a study. Raises ConfigError, naming the file and each mistake; ReadFailed."""
    try:
        values = read_yaml(path)
    except Damaged as error:
        raise ConfigError((str(path), error.reason)) from error
    try:
        return Found(name, path, validate_as(Study, values, list(Study.model_fields)))
    except ConfigError as error:
        problems = [(f"{path}: {where}" if where else str(path), what) for where, what in error.problems]
        raise ConfigError(*problems) from error


def function(found: Found, import_path: str) -> Callable[..., Any]:
    """A function that a study names: of this package, or of a Python file in the study's own folder.

    Called by `lth study` alone, never when a run is opened.

    Raises:
        RequestError: there is no such function.
    """
    module, _, name = import_path.rpartition(".")
    own = found.path.parent / f"{module}.py"
    try:
        if module.startswith("lth_cli.studies."):
            loaded = importlib.import_module(module)
        elif "." not in module and own.is_file():
            spec = importlib.util.spec_from_file_location(f"_study_{module}", own)
            assert spec is not None and spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            raise RequestError(
                f"study {found.name}: {import_path!r} is neither of lth_cli.studies nor in a file of "
                f"{found.path.parent}"
            )
        return getattr(loaded, name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, SyntaxError) as error:
        raise RequestError(f"study {found.name}: there is no function {import_path!r} ({error})") from error


def names(config_dir: Path | None) -> Sequence[str]:
    """For completion."""
    return sorted(paths(config_dir))
