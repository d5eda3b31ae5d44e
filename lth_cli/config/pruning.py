"""The sections of the config that say what a round of pruning is: `pruning`, `rewind`, `control`, `controls`;
and `sparse_training`, for masks that change within a training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lth_cli.config.patterns import parse_pattern
from lth_cli.config.steps import Duration
from lth_cli.config.values import (
    MOST_ROUNDS,
    Component,
    OpenFraction,
    PositiveSteps,
    RoundRange,
    Section,
    Steps,
)

MOST_ITERATIONS = 10_000


def _one_name(value: Any) -> Any:
    """Permuting a layer's mask is drawing a new one with as many weights: two names of the field, one operation."""
    return "random" if value == "shuffle" else value


def _pattern(value: str) -> str:
    parse_pattern(value)
    return value


class Pruning(Section):
    """What goes each round: score x allocation x schedule, over the prunable tensors."""

    score: str = Field("magnitude", description="A function of lth_cli.pruning.scores, or an import path.")
    arguments: Annotated[dict[str, Any], BeforeValidator(lambda given: {} if given is None else given)] = (
        Field(default_factory=dict, description="Keyword arguments of the score.")
    )
    invert: bool = Field(False, description="Keep the weights that score lowest, an ablation.")
    iterations: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] = Field(
        1,
        description="Prunings a round, without training between them, densities along an exponential; scores are taken "
        "anew each time.",
    )
    allocation: Literal["global", "global_normalized", "layerwise", "uniform", "erk"] = Field(
        "global",
        description="global ranks all weights (global_normalized: scores over the L2 norm of their tensor's), "
        "layerwise each layer's, by the same fraction. uniform and erk set what each layer keeps: the same density, "
        "or densities in proportion to sum(shape) / prod(shape).",
    )
    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        "unstructured",
        description="Which weights go together: unstructured, N:M (N of M inputs are kept), block_4x4 (outputs x "
        "inputs; _max for the largest score, not the mean), channel, fan_in (as many inputs for every output).",
    )
    schedule: Literal["geometric", "linear", "exponential", "cubic"] = Field(
        "geometric",
        description="A fraction of what remains, or equal shares of all weights, each round. exponential and cubic "
        "reach `density` in the last round: by equal factors, or fast at first (Zhu & Gupta 2017).",
    )
    rounds: Annotated[int, Field(ge=0, le=MOST_ROUNDS)] = Field(
        description="Pruning rounds after the dense one."
    )
    fraction: OpenFraction = Field(
        0.2, description="Share of the remaining weights pruned a round (geometric)."
    )
    count: Literal["exact", "open_lth"] = Field(
        "exact",
        description="exact: ceil(fraction x remaining) go. open_lth: the fraction is also of layers left out, and all "
        "up to the weight at that rank go (global, geometric).",
    )
    # Null stands for none: a config group can only be emptied that way, since Hydra merges mappings.
    layer_fractions: Annotated[
        dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]],
        BeforeValidator(lambda given: {} if given is None else given),
    ] = Field(
        default_factory=dict,
        description="Own fractions by tensor-name pattern (layerwise only); `output` is the last.",
    )
    density: OpenFraction | None = Field(
        None, description="Stop once no more than this share of weights is left."
    )
    layer_densities: Annotated[
        dict[str, Annotated[float, Field(gt=0.0, le=1.0)]],
        BeforeValidator(lambda given: {} if given is None else given),
    ] = Field(
        default_factory=dict,
        description="Densities of their own by tensor-name pattern (exponential, cubic); `density` is of the others.",
    )
    first_layer: Literal["prune", "keep"] = Field("prune", description="keep leaves the first layer dense.")
    output_layer: Literal["auto", "prune", "keep"] = Field(
        "auto", description="auto follows model.prune_output."
    )
    biases: bool = Field(False, description="Also prune the biases of prunable layers.")
    exclude: list[str] = Field(default_factory=list, description="Tensor-name patterns never pruned.")
    at: Steps | None = Field(
        None,
        description="Step whose weights are scored; null is the end of training. Up to rewind.to it is of the dense "
        "training in all rounds: 0 prunes at initialisation.",
    )
    train_dense: bool = Field(
        True, description="false trains the dense network no further than pruning.at and rewind.to need."
    )

    @model_validator(mode="after")
    def _counts_of_open_lth(self) -> Pruning:
        if self.count == "open_lth":
            given = [
                ("allocation=global", self.allocation == "global"),
                ("schedule=geometric", self.schedule == "geometric"),
                ("density=null", self.density is None),
                ("biases=false", not self.biases),
                ("iterations=1", self.iterations == 1),
            ]
            for needed, there in given:
                if not there:
                    raise ValueError(f"pruning.count=open_lth needs pruning.{needed}")
        return self

    @model_validator(mode="after")
    def _towards_a_density(self) -> Pruning:
        towards = self.schedule in ("exponential", "cubic")
        if towards and self.density is None and self.pattern in ("unstructured", "channel", "fan_in"):
            raise ValueError(f"pruning.schedule={self.schedule} needs pruning.density=, which it reaches")
        if self.layer_densities and not towards:
            raise ValueError("pruning.layer_densities needs pruning.schedule=exponential or cubic")
        return self

    @model_validator(mode="after")
    def _pattern_fits(self) -> Pruning:
        pattern = parse_pattern(self.pattern)
        if pattern is None:
            return self
        if self.count == "open_lth":
            raise ValueError("pruning.count=open_lth needs pruning.pattern=unstructured")
        if self.layer_fractions or self.biases:
            raise ValueError("pruning.layer_fractions and pruning.biases need pruning.pattern=unstructured")
        if pattern.kind == "n_of_m":
            if self.rounds > 1:
                raise ValueError(f"pruning.pattern={self.pattern} takes one round; write pruning.rounds=1")
            if self.density is not None or self.layer_densities:
                raise ValueError(f"pruning.pattern={self.pattern} is a density; leave out pruning.density")
        if pattern.kind == "fan_in" and self.allocation.startswith("global"):
            raise ValueError("pruning.pattern=fan_in needs pruning.allocation=layerwise, uniform or erk")
        return self


class Rewind(Section):
    """How and from where each round retrains (Renda et al. 2020, arXiv:2003.02389)."""

    technique: Literal["weights", "learning_rate", "fine_tune"] = Field(
        "weights",
        description="weights: weights and schedule return to rewind.to. learning_rate: final weights of the round "
        "before, schedule from rewind.to. fine_tune: final weights of the round before, last rate of the schedule.",
    )
    to: Steps = Field(
        Duration(), description="Step of the dense training to which weights or schedule return."
    )
    optimizer: Literal["fresh", "kept"] = Field(
        "fresh",
        description="kept: momentum and the like come with the weights, from the state that a round starts from.",
    )
    length: PositiveSteps | None = Field(
        None,
        description="Steps of a retraining; null is as many as lie between rewind.to and training.length.",
    )
    carry: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Tensors that go on from the end of the round before instead of being rewound: output (layer) or "
        "patterns of tensor names, as the task head of BERT tickets.",
    )
    isometry: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        0,
        description="Iterations that make the kept weights approximately isometric before a retraining, without data "
        "(Lee et al. 2020: 10000); 0 leaves them as rewound.",
    )


class Control(Section):
    """What a round trains in the place of its ticket."""

    mask: Annotated[
        Literal["ticket", "random", "random_global", "even", "inverted"], BeforeValidator(_one_name)
    ] = Field(
        "ticket",
        description="random (or shuffle): drawn anew with the ticket's layer densities. random_global: with its "
        "density over all layers. even: with its density in each layer. inverted: the smallest weights of the dense "
        "network, as many a layer.",
    )
    start: Literal["rewind", "end", "own", "reinit", "keep_signs", "permuted"] = Field(
        "rewind",
        description="end: the trained weights of the ticket's own round. own: those of this config's dense training at "
        "rewind.to, on its data. reinit: newly drawn ones. keep_signs: newly drawn magnitudes with the rewound signs. "
        "permuted: the rewound weights, with masked tensors of repeated blocks exchanged between these.",
    )


# The controls that have a name of their own; configs/control/ has the same ones for lth rewind.
CONTROLS = {
    "random": Control(mask="random"),
    "random_global": Control(mask="random_global"),
    "even": Control(mask="even"),
    "inverted": Control(mask="inverted"),
    "reinit": Control(start="reinit"),
    "keep_signs": Control(start="keep_signs"),
    "permuted": Control(start="permuted"),
}


class Controls(Section):
    """Baselines trained beside the tickets, on the same rounds."""

    kinds: list[
        Annotated[
            Literal["reinit", "random", "random_global", "even", "inverted", "keep_signs", "permuted"],
            BeforeValidator(_one_name),
        ]
    ] = Field(
        default_factory=list,
        description="reinit, keep_signs and permuted: same masks, other weights. random (or shuffle), random_global, "
        "even, inverted: other masks, rewound weights.",
    )
    rounds: RoundRange = Field(
        "all", description="Rounds that get controls: all, last, or for example 3,5-8."
    )


FIXED = "lth_cli.pruning.policies.Fixed"


class SparseTraining(Component):
    """How masks change within a training; its arguments are keys of this section. `pruning` says which tensors."""

    target: str = Field(
        FIXED, alias="_target_", description="A class of lth_cli.pruning.policies, or an import path."
    )
