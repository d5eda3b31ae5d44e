"""What `lth analyze analysis=interventions` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section, Seed

Score = Literal["rand", "ucp", "lcp", "cctp", "ectp", "eudtp"]


class Settings(Section):
    """Task error of concept bottlenecks by the number of concepts corrected (Shin et al. 2023, arXiv:2302.14260)."""

    name: Literal["interventions"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end"], description="A state without a run is one of each RUN asked about."
    )
    scores: Annotated[list[Score], Field(min_length=1)] = Field(
        ["rand", "ucp", "lcp", "cctp", "ectp", "eudtp"],
        description="Orders in which concepts are corrected: at random, by uncertainty, loss (an oracle), "
        "contribution, expected change of the prediction, expected change of its uncertainty.",
    )
    level: Literal["individual", "group"] = Field(
        "individual",
        description="What is corrected at once: a concept, or a group of them as the data name them.",
    )
    batch: bool = Field(
        False,
        description="Order the concepts of all examples together, as many corrections as examples each time.",
    )
    concepts: Literal["soft", "hard", "sampled"] = Field(
        "soft", description="What the second half is given of a probability: it, 0 or 1, or draws by it."
    )
    draws: Annotated[int, Field(ge=1)] = Field(
        5, description="For concepts=sampled; class logits are averaged."
    )
    trials: Annotated[int, Field(ge=1)] = Field(5, description="Random orders; errors are averaged.")
    balanced: bool = Field(
        False, description="Count each class alike in the error, as the authors do for SkinCon."
    )
    split: Literal["val", "test"] = Field("test", description="Examples that are classified.")
    seed: Seed = Field(0, description="Of random orders and draws.")

    @field_validator("scores")
    @classmethod
    def _each_once(cls, scores: list[Score]) -> list[Score]:
        if len(set(scores)) < len(scores):
            raise ValueError("names a score twice")
        return scores
