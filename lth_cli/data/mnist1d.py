"""MNIST-1D: ten one-dimensional digit templates, shifted, sheared and noised; generated on the spot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from lth_cli.data.source import Arrays, Place

NotNegative = Annotated[float, Field(ge=0.0)]


def mnist1d(
    place: Place,
    *,
    num_samples: Annotated[int, Field(ge=20)] = 5000,
    train_split: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42,
    shuffle_seq: bool = False,
    final_seq_length: Annotated[int, Field(ge=2)] = 40,
    max_translation: Annotated[int, Field(ge=1)] = 48,
    scale_coeff: NotNegative = 0.4,
    shear_scale: NotNegative = 0.75,
    corr_noise_scale: NotNegative = 0.25,
    iid_noise_scale: NotNegative = 0.02,
    reverse_seq: bool = False,
) -> Arrays:
    """Signals float32 [N, 40] of 10 classes, standardised over the whole set (Greydanus and Kobak 2020).

    The defaults are those of the published data set: 4,000 training and 1,000 test signals. Keywords but
    `reverse_seq` have the names and meanings of `mnist1d.data.get_dataset_args`.

    Args:
        place: not used; nothing is read.
        num_samples: training and test signals together; rounded down to tens.
        train_split: share of them for training.
        seed: of the generation; part of the data set, unrelated to the seeds of a run.
        shuffle_seq: permute the positions of all signals alike, which removes their spatial structure.
        final_seq_length: values in a signal.
        max_translation: largest shift, before subsampling.
        scale_coeff: amplitude of the random scaling.
        shear_scale: amplitude of the random shear.
        corr_noise_scale: amplitude of the smooth noise.
        iid_noise_scale: amplitude of the white noise.
        reverse_seq: turn all signals back to front.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    for name, value in (
        ("num_samples", num_samples),
        ("train_split", train_split),
        ("seed", seed),
        ("shuffle_seq", shuffle_seq),
        ("final_seq_length", final_seq_length),
        ("max_translation", max_translation),
        ("scale_coeff", scale_coeff),
        ("shear_scale", shear_scale),
        ("corr_noise_scale", corr_noise_scale),
        ("iid_noise_scale", iid_noise_scale),
    ):
        setattr(settings, name, value)
    with _global_randomness_kept():
        made: dict[str, Any] = make_dataset(settings)
    train_inputs, test_inputs = (torch.from_numpy(made[key]).float().contiguous() for key in ("x", "x_test"))
    if reverse_seq:
        train_inputs, test_inputs = train_inputs.flip(-1), test_inputs.flip(-1)
    train_labels, test_labels = (torch.from_numpy(made[key]).long() for key in ("y", "y_test"))
    return Arrays(train_inputs, train_labels, test_inputs, test_labels, classes=10)


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    """Undo what the package does to the generators everyone shares: it seeds them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
