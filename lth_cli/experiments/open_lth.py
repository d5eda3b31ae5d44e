"""What a run folder of open_lth holds (facebookresearch/open_lth, commit 2ce732f): where its files lie, what they say.

    lottery_HASH/replicate_R/level_N/main/{mask.pth, model_epE_itI.pth, logger, sparsity_report.json}
    lottery_HASH/replicate_R/level_0/main/hparams.log

Nothing of a file is executed: tensors are read as tensors alone, the rest as text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from lth_cli.config.errors import RequestError

_MODEL = re.compile(r"model_ep(\d{1,9})_it(\d{1,9})\.pth")
_LEVEL = re.compile(r"level_(\d{1,6})")
_HPARAM = re.compile(r"\s*\* (\w+) => (.*)")
_TEXT_LIMIT = 2**24
_NORMALIZE = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # datasets/cifar10.py
_BATCH_NORM = {
    "uniform": "uniform",
    "fixed": "one",
    "oneone": "oneone",
    "positivenegative": "positivenegative",
}
_FROZEN = {"batchnorm_frozen": "batch_norm", "output_frozen": "output", "others_frozen": "others"}


@dataclass(frozen=True)
class Level:
    """One level of pruning.

    Attributes:
        number: 0 is dense.
        mask: its file.
        models: files of weights by (epoch, iteration within it).
        logged: by (metric, iteration), as its program measured it.
        density: as its report says; None without one.
    """

    number: int
    mask: Path
    models: dict[tuple[int, int], Path]
    logged: dict[tuple[str, int], float]
    density: float | None


@dataclass(frozen=True)
class Folder:
    """A replicate.

    Attributes:
        path: of it.
        levels: ascending from 0.
        hparams: sections by name as `hparams.log` has them.
    """

    path: Path
    levels: list[Level]
    hparams: dict[str, dict[str, str]]


@dataclass
class Translated:
    """Hyperparameters as keys of lth.

    Attributes:
        keys: overrides, as typed.
        not_carried: what has no counterpart, or is not the same here.
    """

    keys: list[str] = field(default_factory=list)
    not_carried: list[str] = field(default_factory=list)


def read_folder(path: Path) -> Folder:
    """A replicate of open_lth: its folder, or that of an experiment with one replicate.

    Raises:
        RequestError: it is none, or lacks a file that makes it one; names what is missing.
    """
    replicates = sorted(found for found in path.glob("replicate_*") if found.is_dir())
    if len(replicates) > 1:
        raise RequestError(f"{path} has several replicates; name one: {', '.join(map(str, replicates))}")
    root = replicates[0] if replicates else path
    found = {
        int(match[1]): level for level in root.glob("level_*") if (match := _LEVEL.fullmatch(level.name))
    }
    if 0 not in found:
        raise RequestError(
            f"{path} is no run folder of open_lth: it has no level_0/main (name lottery_HASH/replicate_R)"
        )
    numbers = sorted(number for number, level in found.items() if (level / "main" / "mask.pth").is_file())
    if 0 not in numbers:
        raise RequestError(f"{root / 'level_0' / 'main' / 'mask.pth'} is missing")
    if numbers != list(range(len(numbers))):
        missing = next(number for number in range(len(found) + 1) if number not in numbers)
        raise RequestError(f"{root / f'level_{missing}' / 'main' / 'mask.pth'} is missing")
    levels = [_level(number, found[number] / "main") for number in numbers]
    return Folder(root, levels, _hparams(found[0] / "main" / "hparams.log"))


def _level(number: int, main: Path) -> Level:
    models = {
        (int(match[1]), int(match[2])): path
        for path in sorted(main.iterdir())
        if (match := _MODEL.fullmatch(path.name))
    }
    if not models:
        raise RequestError(f"{main} has no model_epE_itI.pth")
    return Level(
        number, main / "mask.pth", models, _logged(main / "logger"), _density(main / "sparsity_report.json")
    )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _TEXT_LIMIT:
            raise RequestError(f"{path} is too long for what it should be")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from error


def _logged(path: Path) -> dict[tuple[str, int], float]:
    """Lines `metric,iteration,value`; nothing where the training had not ended."""
    found = {}
    for line in _text(path).splitlines() if path.is_file() else ():
        try:
            name, iteration, value = line.split(",")
            found[name, int(iteration)] = float(value)
        except ValueError:
            raise RequestError(f"{path}: {line[:80]!r} is not metric,iteration,value") from None
    return found


def _density(path: Path) -> float | None:
    if not path.is_file():
        return None
    try:
        report = json.loads(_text(path))
        return float(report["unpruned"]) / float(report["total"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        raise RequestError(f"{path} is not a report of open_lth: total and unpruned") from None


def _hparams(path: Path) -> dict[str, dict[str, str]]:
    """Sections of `* name => value` lines, each below its title."""
    if not path.is_file():
        raise RequestError(f"{path} is missing")
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in _text(path).splitlines():
        if match := _HPARAM.fullmatch(line):
            current[match[1]] = match[2].strip()
        elif line.strip():
            current = sections.setdefault(line.strip(), {})
    return sections


def translate(folder: Folder) -> Translated:
    """The hyperparameters of a folder as keys of lth.

    Raises:
        RequestError: a data set, architecture or optimizer that lth does not have, or one not named.
    """
    made = Translated()
    sections = {title: dict(values) for title, values in folder.hparams.items()}
    for part in (_dataset, _model, _training):
        part(sections, made)
    pruning = {
        key: value
        for title in list(sections)
        if "Pruning" in title
        for key, value in sections.pop(title).items()
    }
    _pruning(pruning, len(folder.levels) - 1, made)
    if "Pretraining Dataset Hyperparameters" in sections:
        for name in ("Dataset", "Training"):
            before = sections.pop(f"Pretraining {name} Hyperparameters", {})
            main = folder.hparams.get(f"{name} Hyperparameters", {})
            made.not_carried += [
                f"pre-training with {key}={value}"
                for key, value in before.items()
                if key != "training_steps" and main.get(key) != value
            ]
    made.not_carried += [f"{key}={value}" for values in sections.values() for key, value in values.items()]
    return made


def _take(values: dict[str, str], key: str, title: str) -> str:
    if key not in values:
        raise RequestError(f"hparams.log: {title} names no {key}")
    return values.pop(key)


def _dataset(sections: dict[str, dict[str, str]], made: Translated) -> None:
    title = "Dataset Hyperparameters"
    values = sections.pop(title, {})
    name = _take(values, "dataset_name", title)
    if name not in ("mnist", "cifar10", "imagenet"):
        raise RequestError(
            f"hparams.log: dataset_name {name!r} is none of open_lth's: mnist, cifar10, imagenet"
        )
    made.keys += [f"dataset={name}", f"training.batch_size={_take(values, 'batch_size', title)}"]
    if name == "cifar10":
        made.keys += [f"dataset.normalize.{key}={shown}" for key, shown in _NORMALIZE.items()]
    if values.pop("do_not_augment", "False") == "True" and name != "mnist":
        made.keys += ["dataset.augment.crop=0", "dataset.augment.flip=false"]
    made.not_carried += [f"{key}={value}" for key, value in values.items()]


def _model(sections: dict[str, dict[str, str]], made: Translated) -> None:
    title = "Model Hyperparameters"
    values = sections.pop(title, {})
    name = _take(values, "model_name", title)
    kind, *numbers = re.findall(r"^(?:mnist_lenet|cifar_resnet|cifar_vgg|imagenet_resnet)|\d+", name) or [""]
    if kind == "mnist_lenet" and numbers:
        made.keys += ["model=lenet_300_100", f"model.hidden=[{','.join(numbers)}]"]
    elif kind == "cifar_resnet" and 1 <= len(numbers) <= 2:
        width = numbers[1] if len(numbers) == 2 else "16"
        made.keys += ["model=resnet20", f"model.depth={numbers[0]}", f"model.width={width}"]
    elif kind == "cifar_vgg" and numbers in (["11"], ["13"], ["16"], ["19"]):
        made.keys.append(f"model=vgg{numbers[0]}")
    elif kind == "imagenet_resnet" and numbers == ["50"]:
        made.keys.append("model=resnet50")
    else:
        raise RequestError(f"hparams.log: lth has no {name!r}; name a model of the same tensors: model=")
    made.keys.append(f"model.init.weights={_take(values, 'model_init', title)}")
    batch_norm = values.pop("batchnorm_init", "uniform")
    if kind != "mnist_lenet":
        made.keys.append(f"model.init.batch_norm={_BATCH_NORM.get(batch_norm, batch_norm)}")
    frozen = [ours for key, ours in _FROZEN.items() if values.pop(key, "False") == "True"]
    if frozen:
        made.keys.append(f"training.freeze=[{','.join(frozen)}]")
    made.not_carried += [f"{key}={value}" for key, value in values.items()]


def _training(sections: dict[str, dict[str, str]], made: Translated) -> None:
    title = "Training Hyperparameters"
    values = sections.pop(title, {})
    name = _take(values, "optimizer_name", title)
    if name not in ("sgd", "adam"):
        raise RequestError(f"hparams.log: optimizer_name {name!r} is none of open_lth's: sgd, adam")
    made.keys += [
        f"optimizer={name}",
        f"optimizer.lr={_take(values, 'lr', title)}",
        f"training.length={_take(values, 'training_steps', title)}",
        f"optimizer.weight_decay={values.pop('weight_decay', '0')}",
    ]
    momentum, nesterov = values.pop("momentum", "0"), values.pop("nesterov_momentum", "")
    if name == "sgd":
        # As training/optimizers.py: the one of nesterov counts where the other is 0.
        made.keys += [
            f"optimizer.momentum={momentum if float(momentum) else nesterov or 0}",
            f"optimizer.nesterov={'true' if nesterov else 'false'}",
        ]
    milestones, gamma = values.pop("milestone_steps", None), values.pop("gamma", None)
    if milestones:
        made.keys += ["schedule=multi_step", f"schedule.milestones=[{milestones}]", f"schedule.gamma={gamma}"]
    else:
        made.keys.append("schedule=constant")
    made.keys.append(f"schedule.warmup={values.pop('warmup_steps', '0it')}")
    # Its order of examples comes from another generator.
    made.not_carried += [f"{key}={value}" for key, value in values.items()]


def _pruning(values: dict[str, str], levels: int, made: Translated) -> None:
    strategy = values.pop("pruning_strategy", "sparse_global")
    if strategy != "sparse_global":
        made.not_carried.append(f"pruning_strategy={strategy}")
    made.keys.append(f"pruning.rounds={levels}")
    if "pruning_fraction" in values:
        made.keys.append(f"pruning.fraction={values.pop('pruning_fraction')}")
    ignored = [name for name in values.pop("pruning_layers_to_ignore", "").split(",") if name]
    made.keys.append(f"pruning.output_layer={'keep' if 'fc.weight' in ignored else 'prune'}")
    rest = [name for name in ignored if name != "fc.weight"]
    if rest:
        made.keys.append(f"pruning.exclude=[{','.join(rest)}]")
    made.not_carried += [f"{key}={value}" for key, value in values.items()]
