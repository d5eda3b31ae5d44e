"""Scores that a run's data are chosen by, kept with the run's analyses: it needs no other run to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lth_cli.config.errors import RequestError
from lth_cli.config.schema import Config, Subset
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import ANALYSES, Run


def keep_scores(config: Config, run: Run) -> None:
    """Copy the scores that a config names into its run, unless they are there; hold the run's lock.

    Raises:
        WriteFailed, ReadFailed, Damaged.
    """

    def keep(subset: Subset) -> Subset:
        if subset.scores is not None and not _kept(subset.scores, run).finished:
            StoredAnalysis(Path(subset.scores).expanduser()).copy(_kept(subset.scores, run).path)
        return subset

    _with_subsets(config, keep)


def with_kept_scores(config: Config, run: Run) -> Config:
    """The config of a run, reading its own copy of the scores.

    Raises:
        RequestError: where the scores lay are others now.
        ReadFailed, Damaged.
    """

    def found(subset: Subset) -> Subset:
        if subset.scores is None:
            return subset
        named, kept = StoredAnalysis(Path(subset.scores).expanduser()), _kept(subset.scores, run)
        if not kept.finished or kept.path == named.path:
            return subset
        if named.finished and named.result != kept.result:
            raise RequestError(f"{named.path} holds other scores than {run.name} began with, in {kept.path}")
        return subset.model_copy(update={"scores": str(kept.path)})

    return _with_subsets(config, found)


def without_places_of_scores(config: Config) -> Config:
    """The config with the names of scores alone: the name says what was asked, where they lie changes nothing."""
    return _with_subsets(
        config,
        lambda subset: (
            subset
            if subset.scores is None
            else subset.model_copy(update={"scores": Path(subset.scores).name})
        ),
    )


def _kept(scores: str, run: Run) -> StoredAnalysis:
    return StoredAnalysis(run.path / ANALYSES / Path(scores).name)


def _with_subsets(config: Config, change: Callable[[Subset], Subset]) -> Config:
    """A config with every part of a data set that it names changed."""
    dataset, pretrain = config.dataset, config.pretrain
    changed = {
        "dataset": pretrain.dataset
        and pretrain.dataset.model_copy(update={"subset": change(pretrain.dataset.subset)}),
        "subset": pretrain.subset and change(pretrain.subset),
    }
    return config.model_copy(
        update={
            "dataset": dataset.model_copy(update={"subset": change(dataset.subset)}),
            "pretrain": pretrain.model_copy(update=changed),
        }
    )
