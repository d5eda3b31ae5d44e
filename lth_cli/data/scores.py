"""Scores of examples, as `lth analyze analysis=examples` stored them, by which a subset is chosen.

A table of scores knows the whole training set that it was made on by a digest, and examples by their position in it, so
that it cannot be taken for another data set's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError, LthError
from lth_cli.data.select import training_labels
from lth_cli.data.source import Arrays, Files
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.formats import NewerFormat
from lth_cli.store.tensors import content_digest

ANALYSIS = "examples"
TABLE = "scores"
"""The analysis and its table that scores are read from."""


def training_set_digest(loaded: Arrays | Files, config: schema.Dataset, split_seed: int) -> str:
    """SHA-256 of a whole training set, before any examples are chosen: inputs and labels, or files.

    Label noise is part of it, by the labels that it leaves: scores measured under one noise are not those of
    another, nor of the clean labels. So are turns, where they are the labels.
    """
    as_loaded = _loaded_digest(loaded)
    if not config.label_noise and not config.rotation_labels:
        return as_loaded
    labels = loaded.train_labels if isinstance(loaded, Arrays) else loaded.train.labels
    drawn = training_labels(labels, loaded.classes, config, split_seed)
    return content_digest({"labels": drawn}, {"training_set": as_loaded, "turned": config.rotation_labels})


def _loaded_digest(loaded: Arrays | Files) -> str:
    if isinstance(loaded, Arrays):
        whole = {"inputs": loaded.train_inputs.contiguous(), "labels": loaded.train_labels.contiguous()}
        return content_digest(whole, {"classes": loaded.classes})
    digest = hashlib.sha256(json.dumps(["streamed", loaded.classes]).encode())
    listed = loaded.train
    for row in zip(listed.paths, listed.sizes.tolist(), listed.labels.tolist(), strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def difficulty(config: schema.Dataset, loaded: Arrays | Files, split_seed: int) -> Tensor | None:
    """How hard each example of the whole training set is by the score that a subset is chosen by.

    Args:
        config: its subset names the score and the folder of the answer.
        loaded: the data set.
        split_seed: of the label noise.

    Returns:
        float64 [N], low = easy (the score, or less the margin); NaN where an example has no score. None where the
        subset is not chosen by a score.

    Raises:
        ConfigError: there is no such answer, it is damaged, lacks the score, or was made on another training set.
    """
    subset = config.subset
    if subset.by is None or subset.scores is None:
        return None
    stored = StoredAnalysis(Path(subset.scores).expanduser())
    try:
        rows = _rows(stored, subset.by, training_set_digest(loaded, config, split_seed))
    except ConfigError:
        raise
    except NewerFormat as error:
        raise _problem(str(error)) from error
    except LthError as error:
        raise _problem(f"{error}; ask lth analyze analysis={ANALYSIS} again") from error
    labels = loaded.train_labels if isinstance(loaded, Arrays) else loaded.train.labels
    found = torch.full((len(labels),), torch.nan, dtype=torch.float64)
    index, values = zip(*rows, strict=True)
    found[torch.tensor(index)] = torch.tensor(values, dtype=torch.float64)
    return -found if subset.by == "margin" else found


def _rows(stored: StoredAnalysis, score: schema.Score, training_set: str) -> list[tuple[int, float]]:
    """Position and score of every example that has one."""
    if not stored.finished:
        raise _problem(
            f"{stored.path} is no finished answer of lth analyze; write the folder of one of "
            f"analysis={ANALYSIS}, for example runs/NAME/analysis/{ANALYSIS}-1a2b3c4d"
        )
    result = stored.result
    if result.get("analysis") != ANALYSIS:
        raise _problem(f"{stored.path} answers analysis={result.get('analysis')}, not analysis={ANALYSIS}")
    for path, fault in stored.faults():
        raise _problem(f"{path} is damaged: {fault}; ask lth analyze analysis={ANALYSIS} again")
    about = result["tables"][TABLE]
    if score not in about["columns"]:
        there = ", ".join(name for name in get_args(schema.Score) if name in about["columns"])
        raise ConfigError(("dataset.subset.by", f"{stored.path} has no {score}; it has {there}"))
    if result["summary"]["training_set"] != training_set:
        raise _problem(
            f"{stored.path} holds scores of another training set than this one (its label noise included)"
        )
    return [(int(row["index"] or 0), float(row[score] or 0.0)) for row in stored.table(TABLE, about)]


def _problem(message: str) -> ConfigError:
    return ConfigError(("dataset.subset.scores", message))
