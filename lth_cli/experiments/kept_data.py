"""What a run's data are chosen by or made of, kept with the run: it needs no other run to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.schema import Config, Dataset, Subset
from lth_cli.data.condensed import condensed_file
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.examples import keep_examples, kept_examples, name_of, same_examples
from lth_cli.store.runs import ANALYSES, Run


def keep_data(config: Config, run: Run) -> None:
    """Copy the scores and condensed examples that a config names into its run, unless they are there; hold its lock.

    Raises:
        WriteFailed, ReadFailed, Damaged.
    """

    def keep(subset: Subset) -> Subset:
        if subset.scores is not None and not _kept(subset.scores, run).finished:
            StoredAnalysis(Path(subset.scores).expanduser()).copy(_kept(subset.scores, run).path)
        return subset

    def keep_condensed(dataset: Dataset) -> Dataset:
        if dataset.condensed is not None and kept_examples(run, dataset.condensed) is None:
            keep_examples(run, dataset.condensed, condensed_file(dataset.condensed))
        return dataset

    _changed(config, keep, keep_condensed)


def with_kept_data(config: Config, run: Run) -> Config:
    """The config of a run, reading its own copy of scores and condensed examples.

    Raises:
        RequestError: where they lay are others now.
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

    def found_condensed(dataset: Dataset) -> Dataset:
        named = dataset.condensed
        kept = None if named is None else kept_examples(run, named)
        if named is None or kept is None or Path(named) == kept:
            return dataset
        try:
            same = same_examples(kept, condensed_file(named))
        except ConfigError:  # they are gone
            same = True
        if not same:
            raise RequestError(f"{named} holds other examples than {run.name} began with, in {kept}")
        return dataset.model_copy(update={"condensed": str(kept)})

    return _changed(config, found, found_condensed)


def without_places_of_data(config: Config) -> Config:
    """The config with the names of scores and examples alone: a name says what was asked, a place changes nothing."""

    def subset_alone(subset: Subset) -> Subset:
        named = subset.scores
        return subset if named is None else subset.model_copy(update={"scores": Path(named).name})

    def dataset_alone(dataset: Dataset) -> Dataset:
        named = dataset.condensed
        return dataset if named is None else dataset.model_copy(update={"condensed": name_of(named)})

    return _changed(config, subset_alone, dataset_alone)


def _kept(scores: str, run: Run) -> StoredAnalysis:
    return StoredAnalysis(run.path / ANALYSES / Path(scores).name)


def _changed(
    config: Config, change: Callable[[Subset], Subset], change_dataset: Callable[[Dataset], Dataset]
) -> Config:
    """A config with every data set that it names changed, and every part of one."""

    def both(dataset: Dataset) -> Dataset:
        return change_dataset(dataset.model_copy(update={"subset": change(dataset.subset)}))

    pretrain = config.pretrain
    changed = {
        "dataset": pretrain.dataset and both(pretrain.dataset),
        "subset": pretrain.subset and change(pretrain.subset),
    }
    return config.model_copy(
        update={"dataset": both(config.dataset), "pretrain": pretrain.model_copy(update=changed)}
    )
