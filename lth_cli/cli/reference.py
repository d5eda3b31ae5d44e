"""The configuration reference, made from the schema and the config groups.

python -m lth_cli.cli.reference > docs/configuration.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from lth_cli.analyses.schema import Analyze, sections
from lth_cli.config.named import packaged_configs
from lth_cli.config.schema import Config

_ENVIRONMENT = re.compile(r"\$\{oc\.env:\w+,([^}]*)\}")
_COMMENTED = re.compile(r"^ *(?P<key>[A-Za-z_]\w*):.*?(?:\s#\s*(?P<comment>.*))?$")
_HEAD = """\
# Configuration reference

Made from the schema and the config files by `python -m lth_cli.cli.reference > docs/configuration.md`;
a test keeps it up to date.

Every key can be given on the command line as `KEY=VALUE`, in
[Hydra's override grammar](https://hydra.cc/docs/advanced/override_grammar/basic/):

```
lth prune model=conv2 optimizer.lr=3e-4 'dataset.subset.classes=[3,5]'   # options of a group, values, lists
lth prune optimizer=sgd +optimizer.dampening=0.1     # + adds a key that the file does not have
lth prune -m seed=0,1,2 rewind.to=0,100it            # every combination
lth prune model=vgg16 --cfg job                      # print the composed config, run nothing
```

- **Defaults** are those of `lth prune` as composed, with the options named at each group; those of keys that
  it does not have are of `lth rewind`.
- **Steps** are written `500it` (iterations), `2ep` (epochs) or `1ep50it`. A plain `0` is the start; any other
  plain number is refused, since it would not say which is meant.
- An **option** of a group replaces the whole section: `model=resnet20`. A **key** changes one value:
  `model.depth=32`.
- A section with a `_target_` passes its further keys, as keyword arguments, to the function or class at that
  import path. They are checked against its signature. `???` marks a value that has to be given.
- Numbers are finite; an unknown key, a number in quotes or a number out of range is an error. All mistakes in
  values are reported at once, before anything is created.
"""


def render() -> str:
    """The whole reference as Markdown."""
    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    groups = _groups()
    composed, chosen = (
        {**of_rewind, **of_prune}
        for of_rewind, of_prune in zip(_composed("rewind"), _composed("prune"), strict=True)
    )
    plain: list[str] = []
    sections: list[str] = []
    for name, field in schema["properties"].items():
        section = _section(field, definitions)
        if section is None:
            plain.append(_row(name, field, composed, definitions))
            continue
        option = f" Group; the default is `{name}={chosen[name]}`." if name in chosen else ""
        rows = list(_rows(name, section, composed, definitions))
        sections.append(f"### `{name}`\n\n{section['description']}{option}\n\n{_table(rows)}")
    parts = [
        _HEAD,
        "## Keys\n",
        _table(plain),
        *sections,
        "## Groups\n",
        *(
            _group(name, folder)
            for name, folder in groups.items()
            if name not in ("experiment", "analysis", "study")
        ),
        *_analyses(groups["analysis"]),
        "## Experiments\n\nA published setting is one file of overrides on all of the above. Later overrides win: "
        "`lth prune experiment=demo pruning.rounds=3`.\n",
        *(_experiment(path) for path in sorted(groups["experiment"].glob("*.yaml"))),
        "## Studies\n\nA paper in one file: `lth study run NAME`; `docs/studies.md` says how to write one.\n",
        _studies(groups["study"]),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _groups() -> dict[str, Path]:
    folders = sorted(path for path in packaged_configs().iterdir() if path.is_dir())
    return {path.name: path for path in folders if any(path.glob("*.yaml"))}


def _composed(command: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The default config of a command, whatever the environment says, and the option chosen in each group."""
    with initialize_config_dir(str(packaged_configs().resolve()), version_base="1.3"):
        config = hydra_compose(command, return_hydra_config=True)
    chosen = {str(group): str(option) for group, option in config.hydra.runtime.choices.items() if option}
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key != "hydra"}, chosen


def _section(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    """The definition of a field that is itself a section; None for a plain value."""
    for branch in (field, *field.get("anyOf", ())):
        definition = definitions.get(branch.get("$ref", "").rpartition("/")[2], {})
        if "properties" in definition:
            return dict(definition)
    return None


def _rows(path: str, section: dict[str, Any], composed: Any, definitions: dict[str, Any]) -> Iterator[str]:
    for name, field in section["properties"].items():
        key = f"{path}.{name}"
        inner = _section(field, definitions)
        if inner is None:
            yield _row(key, field, composed, definitions)
            continue
        if "anyOf" in field:
            same = f", keys as in `{name}`" if name in Config.model_fields else ""
            yield f"| `{key}` | mapping{same}, or null | | {field.get('description', inner['description'])} |"
            if same:
                continue
        yield from _rows(key, inner, composed, definitions)


def _row(key: str, field: dict[str, Any], composed: Any, definitions: dict[str, Any]) -> str:
    default = composed
    for part in key.split("."):
        default = default.get(part, ...) if isinstance(default, dict) else ...
    shown = "" if default is ... else f"`{_value(default)}`"
    meaning = _escaped(field.get("description", ""))
    return f"| `{key}` | {_type(field, definitions)} | {shown} | {meaning} |"


def _escaped(prose: str) -> str:
    """Prose in a cell of a Markdown table."""
    return prose.replace("|", "\\|").replace("<", "&lt;")


def _value(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, str):
        match = _ENVIRONMENT.fullmatch(value)
        return match[1] if match else value
    return json.dumps(value)


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:  # noqa: PLR0911 - one a kind
    """A JSON schema type in plain words."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        return " or ".join(_type(branch, definitions) for branch in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field['items'], definitions)}" if field.get("maxItems") != 0 else "empty list"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"mapping to {_type(inner, definitions)}" if isinstance(inner, dict) else "mapping"
    if kind == "string":
        return "steps" if field.get("format") == "steps" else "text"
    words = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "null": "null"}
    return words.get(str(kind), "any value") + _range(field)


def _range(field: dict[str, Any]) -> str:
    bounds = []
    for key, words in (("minimum", "from"), ("exclusiveMinimum", "above")):
        if key in field:
            bounds.append(f"{words} {_bound(field[key])}")
    for key, words in (("maximum", "to"), ("exclusiveMaximum", "below")):
        if key in field:
            bounds.append(f"{words} {_bound(field[key])}")
    return (" " + " ".join(bounds)) if bounds else ""


def _bound(value: float) -> str:
    return "2^53" if value == 2**53 else f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _group(name: str, folder: Path) -> str:
    """The options of a group: what each is, and the keys that only its target knows."""
    rows = [
        f"| `{path.stem}` | {_about(path)} | {_own_keys(name, path)} |"
        for path in sorted(folder.glob("*.yaml"))
    ]
    return "\n".join(
        [f"### `{name}=`\n", "| option | what it is | keys of its own |", "| --- | --- | --- |", *rows]
    )


def _analyses(folder: Path) -> Iterator[str]:
    """The keys of `lth analyze`, and those of each question."""
    schema = Analyze.model_json_schema()
    composed = _composed("analyze")[0]
    yield "## `lth analyze`\n\nIts keys; those of the question asked are below `analysis.`.\n"
    rows: list[str] = []
    for name, field in schema["properties"].items():
        section = _section(field, schema["$defs"])
        if name != "analysis":
            if section is None:
                rows.append(_row(name, field, composed, schema["$defs"]))
            else:
                rows += _rows(name, section, composed, schema["$defs"])
    yield _table(rows)
    yield _group("analysis", folder)
    for name, section_type in sections().items():
        section = section_type.model_json_schema()
        values = {"analysis": yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))}
        definitions = section.get("$defs", {})
        section["properties"].pop("name")
        yield f"### `analysis={name}`\n\n{_table(list(_rows('analysis', section, values, definitions)))}"


def _leading_comment(path: Path) -> list[str]:
    """The comment at the top of a config file, without Hydra's directives."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def _about(path: Path) -> str:
    """What an option is: its leading comment, or else what it sets."""
    prose = " ".join(line for line in _leading_comment(path) if not line.startswith("  "))
    if prose:
        return _escaped(prose)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "_target_" in values:
        return f"`{values['_target_']}`"
    return ", ".join(f"`{key}: {_value(value)}`" for key, value in values.items())


def _own_keys(group: str, path: Path) -> str:
    """Keys outside the schema, with their values and the comments beside them."""
    text = path.read_text(encoding="utf-8")
    known = Config.model_json_schema()
    section = _section(known["properties"].get(group, {}), known["$defs"])
    if section is None or section.get("additionalProperties") is False:
        return ""
    comments: dict[str, str] = {}
    for line in text.splitlines():
        if (match := _COMMENTED.match(line)) and match["comment"]:
            comments.setdefault(match["key"], match["comment"])
    own = {
        key: value
        for key, value in yaml.safe_load(text).items()
        if key not in {*section["properties"], "defaults"}
    }
    shown = []
    for key, value in own.items():
        comment = f" ({_escaped(comments[key])})" if key in comments else ""
        shown.append(f"`{key}: {_value(value)}`{comment}")
    return "; ".join(shown)


def _experiment(path: Path) -> str:
    lines = _leading_comment(path)
    prose = " ".join(line for line in lines if not line.startswith("  "))
    commands = [line.strip() for line in lines if line.startswith("  ")]
    shown = ["", "```", *commands, "```"] if commands else []
    return "\n".join([f"### `experiment={path.stem}`\n", prose, *shown])


def _studies(folder: Path) -> str:
    rows = [f"| `{path.stem}` | {_leading_comment(path)[0]} |" for path in sorted(folder.glob("*.yaml"))]
    return "\n".join(["### `study=`\n", "| study | |", "| --- | --- |", *rows])


if __name__ == "__main__":
    sys.stdout.write(render())
