"""What `lth analyze analysis=reconstruction` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section, Seed

Count = Annotated[int, Field(ge=1)]


class Settings(Section):
    """Pruning of a causal language model block by block, and reconstruction (Shin et al. 2024, arXiv:2406.15524)."""

    name: Literal["reconstruction"]
    state: StateName = Field("0@start", description="The network that is pruned.")
    method: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        "wanda", description="How weights of the blocks' linear layers are chosen."
    )
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="Share of the weights pruned, without a pattern."
    )
    pattern: Literal["unstructured", "2:4", "4:8"] = Field(
        "unstructured", description="N:M keeps N of M weights along a layer's inputs."
    )
    reconstruction: Literal["none", "block", "global", "cross"] = Field(
        "block",
        description="What blocks are trained towards: nothing; what the dense block makes of the same inputs; what the "
        "dense network makes of its own; that, two neighbours at a time.",
    )
    samples: Count = Field(256, description="Training texts that masks and reconstruction are calibrated on.")
    generated: Annotated[int, Field(ge=0)] = Field(
        0, description="Texts that the dense network writes, for reconstruction alone, added to the samples."
    )
    test_samples: Count = Field(64, description="Test texts that the error of each block is measured on.")
    epochs: Count = Field(10, description="Of each block's training.")
    batch_size: Count = Field(8, description="Texts in a step, and in every pass over activations.")
    lr: Annotated[float, Field(gt=0.0)] = Field(
        2e-4, description="Of AdamW; falls linearly to 0 over a block's training."
    )
    seed: Seed = Field(0, description="Of the texts chosen and written, and their order.")
