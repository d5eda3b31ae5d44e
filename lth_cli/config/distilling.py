"""The section `distillation` of the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lth_cli.config.references import Reference
from lth_cli.config.values import Component, Fraction, Section

Relative = Literal["dense", "previous"]
RELATIVE: tuple[Relative, ...] = ("dense", "previous")
"""Teachers that are another network for each round of a run."""

Weight = Annotated[float, Field(ge=0.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Distillation(Section):
    """Teachers of a training, and how much of it they take part in (Hinton et al. 2015; Blakeney et al. 2022)."""

    teachers: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Any of RUN:ROUND@STEP; latest, best (of the finished runs on the same data set); sweep:NAME, "
        "sweep:NAME/latest, sweep:NAME/best; FILE.safetensors or FILE.pt; torchvision:NAME or "
        "torchvision:NAME/WEIGHTS; for the rounds of a run dense (its dense network) and previous (the round before).",
    )
    loss: Literal["kl", "mse", "cross_entropy", "features"] = Field(
        "kl",
        description="kl: T^2 KL(teacher || student). mse: of logits. cross_entropy: with the class it prefers. "
        "features: of similarities between the examples of a batch, by class tokens.",
    )
    temperature: Annotated[float, Field(gt=0.0)] = Field(4.0, description="T of kl.")
    weight: Weight = Field(0.9, description="Of the teachers' loss.")
    task_weight: Weight = Field(
        0.1, description="Of the cross-entropy with the labels, in steps that distil; 1 in all others."
    )
    start: Fraction = Field(0.0, description="Share of training after which distillation begins.")
    end: Fraction = Field(1.0, description="Share of training after which it ends; 1 is never.")
    every: Annotated[int, Field(ge=1)] = Field(
        1, description="Distil in every so manieth step between start and end, from the first on."
    )
    sample: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Teachers drawn anew each step; null averages the logits of all."
    )
    patches: PositiveFraction | None = Field(
        None, description="Share of the patches of an image that teachers look at; null is all."
    )
    patches_by: Literal["student", "teacher", "random"] = Field(
        "student",
        description="Which: those that the class token attends to most in the last block, the student's or the "
        "teacher's own, or random ones.",
    )
    cache: bool = Field(
        False, description="Keep the teachers' answers on disk: by example, by step where data is augmented."
    )
    precision: Literal["same", "fp32", "bf16"] = Field(
        "same", description="Arithmetic of the teachers; same is that of the student."
    )
    model: Component | None = Field(
        None, description="Architecture of teachers from weight files; null is that of the student."
    )
    same_classes: bool = Field(
        False,
        description="Your word that teachers from another data set know the same classes in the same order.",
    )
    trust: bool = Field(False, description="Let stored configs of teachers name code from outside lth.")

    @model_validator(mode="after")
    def _consistent(self) -> Distillation:
        twice = sorted({name for name in self.teachers if self.teachers.count(name) > 1})
        if twice:
            raise ValueError(f"distillation.teachers: {twice[0]!r} stands there twice")
        for name in self.teachers:
            check_name(name)
        if self.cache and (self.patches is not None or self.loss == "features"):
            raise ValueError(
                "distillation.cache keeps logits for whole images, so not with distillation.patches or loss=features"
            )
        if self.loss == "features" and len(self.teachers) > 1:
            raise ValueError("distillation.loss=features takes one teacher")
        if self.start >= self.end:
            raise ValueError(
                f"distillation.start={self.start} leaves nothing before distillation.end={self.end}"
            )
        if self.model is not None and not any(map(is_file, self.teachers)):
            raise ValueError("distillation.model is the architecture of weight files, and no teacher is one")
        return self


def is_file(name: str) -> bool:
    """Whether a teacher is a weight file."""
    return name.endswith((".safetensors", ".pt", ".pth"))


def check_name(name: str) -> None:
    """Refuse a teacher that none can be. Raises ValueError naming what is accepted."""
    if name in RELATIVE or name in ("latest", "best") or is_file(name):
        return
    kind, colon, rest = name.partition(":")
    if colon and kind in ("sweep", "torchvision"):
        if not rest:
            raise ValueError(f"distillation.teachers: {name!r} names none; write {kind}:NAME")
        return
    try:
        Reference.parse(name)
    except ValueError as error:
        raise ValueError(f"distillation.teachers: {error}") from None
