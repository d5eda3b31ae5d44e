"""The sections `data` and `dataset` of the config: what is trained on, and what is done to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lth_cli.config.values import (
    Component,
    Fraction,
    Section,
)


class DataPlace(Section):
    """Where data lies and how it is read; changes no number."""

    root: str | None = Field(None, description="Folder of the data sets (environment: LTH_DATA_ROOT).")
    download: bool = Field(False, description="Download a missing data set into data.root.")
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        2, description="Loader processes of streamed data sets."
    )


# Columns of the table that analysis=examples stores.
Score = Literal["loss", "margin", "el2n", "grand", "forgetting", "barrier", "improvement"]


class Subset(Section):
    """Part of the training examples: drawn by seeds.split, or chosen by a score."""

    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Share of the training examples kept, drawn by seeds.split."
    )
    by: Score | None = Field(
        None, description="Score that examples are chosen by; null draws them by seeds.split."
    )
    scores: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Folder of an answer of analysis=examples, such as runs/NAME/analysis/examples-1a2b3c4d.",
    )
    keep: Literal["easiest", "hardest"] = Field(
        "easiest",
        description="easiest: those of the lowest score (margin: highest); among equals seeds.split decides.",
    )
    count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Examples kept, by score or drawn, in the place of a fraction."
    )
    offset: Annotated[int, Field(ge=0)] = Field(
        0, description="Examples passed over before those kept by score."
    )
    class_balanced: bool = Field(
        False, description="As many of each class; where count leaves a rest, one more of each of the first."
    )
    classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="Classes kept (train, validation, test), relabelled 0, 1, ... in this order."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Subset:
        if (self.by is None) != (self.scores is None) or (self.by is not None and self.count is None):
            raise ValueError("choosing by a score takes by, scores and count, all three")
        if self.by is None and (self.offset or self.keep != "easiest"):
            raise ValueError("keep and offset choose by a score; give by, scores and count too")
        if self.count is not None and self.fraction < 1:
            raise ValueError("is of a count or a fraction, not both")
        if self.class_balanced and self.count is None:
            raise ValueError("class_balanced takes a count")
        return self


class Normalize(Section):
    """Per-channel normalisation (x - mean) / std of inputs scaled to [0, 1]."""

    mean: list[float]
    std: list[Annotated[float, Field(gt=0.0)]]


class Augment(Section):
    """Training-time augmentation, a function of (seeds.augment, step) alone."""

    crop: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Zero-pad by this many pixels, crop at random."
    )
    flip: bool = Field(False, description="Mirror left-right with probability 1/2.")
    cutout: Annotated[int, Field(ge=0, le=512)] = Field(
        0, description="Side of the square set to zero, in pixels."
    )
    rand_augment: Annotated[int, Field(ge=0, le=20)] = Field(
        0,
        description="Operations of RandAugment on each image (Cubuk et al. 2020, arXiv:1909.13719); 0 is none.",
    )
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        9, description="How strong the operations of RandAugment are."
    )
    blur: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Scale images down by this factor and up again, as open_lth blurs; 0 is none."
    )
    gaussian_blur: Annotated[float, Field(ge=0.0, le=64.0)] = Field(
        0.0, description="Standard deviation of a Gaussian blur in pixels; 0 is none."
    )
    mixup: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0, description="alpha of MixUp (Zhang et al. 2018, arXiv:1710.09412); 0 is none."
    )
    cutmix: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0,
        description="alpha of CutMix (Yun et al. 2019, arXiv:1905.04899); with MixUp, one of both a batch.",
    )

    @property
    def active(self) -> list[str]:
        """Keys of what is done to training batches."""
        return [key for key, value in self.model_dump(exclude={"magnitude"}).items() if value]

    @property
    def draws(self) -> bool:
        """Whether any of it is random; blurs are not."""
        return bool({*self.active} - {"blur", "gaussian_blur"})

    @property
    def mixing(self) -> bool:
        """Whether training batches have soft labels."""
        return bool(self.mixup or self.cutmix)

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that decide it; what came later stands there only where it is used."""
        always = {"crop", "flip", "cutout"}
        later = {"magnitude"} if self.rand_augment else set()
        return self.model_dump(include=always | later | set(self.active))


class Dataset(Component):
    """A data set and what is done to it."""

    validation: Annotated[float, Field(ge=0.0, lt=1.0)] | Annotated[int, Field(ge=0)] = Field(
        0, description="Training examples held out: a count (integer) or a share (fraction)."
    )
    subset: Subset = Subset()
    label_noise: Fraction = Field(
        0.0,
        description="Share of the labels of the whole training set replaced by uniformly random ones, before any "
        "examples are chosen.",
    )
    rotation_labels: bool = Field(
        False,
        description="Turn each image by one of four angles, drawn by seeds.split; its label is which (Gidaris et al. "
        "2018, arXiv:1803.07728).",
    )
    condensed: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Folder of a run of model=condensed, or a file of safetensors (images, labels), whose examples "
        "take the place of the training set.",
    )
    normalize: Normalize | None = Field(None, description="Null leaves inputs as loaded.")
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _one_task(self) -> Dataset:
        if self.rotation_labels and self.label_noise:
            raise ValueError(
                "rotation_labels and label_noise exclude each other: a turned image has one right label"
            )
        return self
