"""Tab completion of overrides: config groups and their options, keys and the values they accept."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer


def complete_override(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ways to go on with the override being typed, as the shell wants them."""
    words = _bash_words() or [*(ctx.params.get("overrides") or ()), incomplete]
    word = words[-1]
    # Bash breaks words at `=` and replaces only what follows it; the other shells replace the whole word.
    splits = word != incomplete
    folders = _config_folders(ctx.params.get("config_dir"))
    key, equals, value = word.partition("=")
    if equals:
        done, comma, part = value.rpartition(",")
        found = _values(folders, words, key)
        return [
            ("" if splits else f"{key}=") + done + comma + choice
            for choice in found
            if choice.startswith(part)
        ]
    keys = [known for known in _all_keys(folders, words) if known.startswith(word)]
    if len(keys) == 1:
        # A single suggestion ends the word with a space; its values beside it leave the cursor after `=`.
        return [f"{keys[0]}={choice}" for choice in ("", *_values(folders, words, keys[0]))]
    return [f"{known}=" for known in keys]


def _bash_words() -> list[str]:
    """The command line up to the cursor from bash's COMP_WORDS, with what bash split at `=` joined; else empty."""
    words = os.environ.get("COMP_WORDS", "").split()
    if not words:
        return []
    cursor = int(os.environ.get("COMP_CWORD", "0"))
    words = words[: cursor + 1] + [""] * (len(words) <= cursor)
    joined: list[str] = []
    after_equals = False
    for word in words:
        if joined and (word == "=" or after_equals):
            joined[-1] += word
        else:
            joined.append(word)
        after_equals = word == "="
    return joined


def _config_folders(own: Path | str | None) -> list[Path]:
    from lth_cli.config.named import packaged_configs

    return [packaged_configs(), *([Path(own)] if own else [])]


def _options(folders: Iterable[Path], group: str) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _groups(folders: Iterable[Path]) -> list[str]:
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/*.yaml")} - {"study"})


def _all_keys(folders: list[Path], words: list[str]) -> list[str]:
    from lth_cli.config.schema import fields

    written = _written(folders, words)
    groups = _groups(folders)
    leaves = [path for path, field in fields() if not hasattr(field.annotation, "model_fields")]
    return sorted({*groups, *leaves, *written} - {path for path in leaves if path.endswith("_target_")})


def _values(folders: list[Path], words: list[str], key: str) -> list[str]:
    """Options of a group; every value of a key that has few; else the value it has now."""
    from lth_cli.config.schema import fields

    if options := _options(folders, key):
        return options
    annotation = next((field.annotation for path, field in fields() if path == key), None)
    if typing.get_origin(annotation) is typing.Literal:
        return [str(value) for value in typing.get_args(annotation)]
    present = _written(folders, words).get(key)
    if annotation is bool or isinstance(present, bool):
        return ["true", "false"]
    plain = isinstance(present, str | int | float) and not str(present).startswith(("${", "?"))
    return [str(present)] if plain else []


def _written(folders: list[Path], words: list[str]) -> dict[str, Any]:
    """Keys and values that stand in the config files in use: the defaults and the options chosen so far."""
    import yaml

    from lth_cli.config.named import flat

    defaults = yaml.safe_load((folders[0] / "defaults.yaml").read_text(encoding="utf-8"))
    chosen: dict[str, Any] = {}
    for entry in defaults.pop("defaults"):
        chosen |= entry if isinstance(entry, dict) else {}
    chosen |= dict(word.split("=", 1) for word in words[:-1] if "=" in word)
    written = flat(defaults)
    for group in _groups(folders):
        for folder in folders:
            path = folder / group / f"{chosen.get(group)}.yaml"
            if path.is_file() and group != "experiment":
                content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
                written |= flat({group: content})
    return {key: value for key, value in written.items() if not key.endswith(("_target_", ".defaults"))}


def complete_analysis(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ways to go on with a word of `lth analyze`: analyses, and keys of the one chosen so far."""
    words = _bash_words() or [*(ctx.params.get("words") or ()), incomplete]
    word = words[-1]
    splits = word != incomplete
    folders = _config_folders(ctx.params.get("config_dir"))
    key, equals, value = word.partition("=")
    if equals:
        options = _options(folders, "analysis") if key == "analysis" else []
        return [("" if splits else f"{key}=") + option for option in options if option.startswith(value)]

    from lth_cli.analyses.schema import known_keys

    chosen = next((text.split("=", 1)[1] for text in words if text.startswith("analysis=")), None)
    keys = ["analysis", *(known for known, _ in known_keys(chosen) if known != "analysis.name")]
    return [f"{known}=" for known in keys if known.startswith(word)]
