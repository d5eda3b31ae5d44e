"""Examples with concepts between inputs and class, made by a known causal graph."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.source import Fields, Place

_Share = Annotated[float, Field(ge=0.0, lt=1.0)]
_SPLIT_SEED = 42  # of the authors' code


def synthetic_concepts(
    place: Place,
    *,
    classes: Annotated[int, Field(ge=2)] = 100,
    concepts: PositiveInt = 100,
    groups: PositiveInt = 50,
    values: PositiveInt = 100,
    each: Annotated[int, Field(ge=2)] = 100,
    alpha_mean: float = 0.8,
    alpha_std: Annotated[float, Field(ge=0.0)] = 0.1,
    weight_std: Annotated[float, Field(gt=0.0)] = 0.1,
    noise_std: Annotated[float, Field(ge=0.0)] = 0.8,
    hidden: _Share = 0.0,
    diversity: _Share = 0.0,
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15,
    weighted: bool = True,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> Fields:
    """Synthetic concepts of Shin et al. 2023 (arXiv:2302.14260, section 5) with its variants, as their code makes them.

    alpha_i ~ N(alpha_mean, alpha_std), clipped to [0, 1]; concept i of a group of similar classes is 1 where a uniform
    number is at least alpha_i; each class of a group turns over one concept, each another. An example is x = W c + z,
    W ~ N(0, weight_std), z ~ N(0, noise_std). The test examples are drawn by class.

    Their variants are settings: more `hidden` concepts, `diversity` within a class, sparser concepts (`alpha_mean`),
    more similar classes (fewer `groups`). W and z stay the same under each, as there.

    Args:
        place: not used; nothing is read.
        classes: spread over the groups.
        concepts: binary, before any is hidden.
        groups: of similar classes; their number divides that of the classes.
        values: of an example.
        each: examples of a class, training and test together.
        alpha_mean: mean of alpha; higher makes concepts rarer.
        alpha_std: standard deviation of alpha.
        weight_std: of W.
        noise_std: of z.
        hidden: share of the concepts that nobody is told of, though inputs depend on them.
        diversity: probability that a concept of an example is another than its class has.
        test: share of the examples that test.
        weighted: adds `concept_weights`, (absent / present) of each concept among the training examples, by which its
            loss counts; 1 where a concept is never present.
        seed: of all that is drawn; part of the data set, unrelated to the seeds of a run.

    Returns:
        inputs float32 [N, values], concepts float32 [N, shown concepts] of 0 and 1, labels int64 [N].

    Raises:
        ConfigError: classes that groups cannot share evenly, or more classes in a group than concepts to turn over.
    """
    from sklearn.model_selection import train_test_split

    in_group, left = divmod(classes, groups)
    if left or not in_group:
        raise ConfigError(
            ("dataset.groups", f"{groups} groups cannot have as many each of {classes} classes")
        )
    if in_group > concepts:
        problem = f"{in_group} classes in a group turn over one concept each, and there are {concepts}"
        raise ConfigError(("dataset.groups", problem))

    def drawing(what: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(seed, f"concepts {what}"))

    alpha = np.clip(drawing("alpha").normal(alpha_mean, alpha_std, concepts), 0, 1)
    of_group = drawing("beta").uniform(size=(groups, concepts)) >= alpha
    of_class = of_group.repeat(in_group, axis=0)
    turning = drawing("turned")
    turned = [turning.choice(concepts, in_group, replace=False) for _ in range(groups)]
    of_class[np.arange(classes), np.concatenate(turned)] ^= True
    labels = np.arange(classes).repeat(each)
    held = of_class[labels] ^ (drawing("diversity").uniform(size=(len(labels), concepts)) < diversity)
    weights = drawing("W").normal(0, weight_std, (values, concepts))
    noise = drawing("z").normal(0, noise_std, (len(labels), values))
    inputs = held @ weights.T + noise
    shown = np.sort(drawing("hidden").choice(concepts, max(1, int((1 - hidden) * concepts)), replace=False))
    try:
        train, tested = train_test_split(
            np.arange(len(labels)), stratify=labels, test_size=test, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise ConfigError(("dataset.test", f"{test:g} of {each} examples a class: {error}")) from error
    counts = balance(torch.from_numpy(held[train][:, shown]).float()) if weighted else None

    def split(index: NDArray[np.int64]) -> dict[str, Tensor]:
        found = {
            "inputs": torch.from_numpy(inputs[index]).float(),
            "concepts": torch.from_numpy(held[index][:, shown]).float(),
            "labels": torch.from_numpy(labels[index]),
        }
        return (
            found if counts is None else {**found, "concept_weights": counts.expand(len(index), -1).clone()}
        )

    return Fields(split(train), split(tested), {"classes": classes, "concepts": len(shown)})


def balance(concepts: Tensor) -> Tensor:
    """Absent / present of each concept, float32 [concepts], from examples float32 [N, concepts]; 1 where never
    present.
    """
    present = concepts.sum(0)
    return torch.where(present > 0, (len(concepts) - present) / present, 1.0)
