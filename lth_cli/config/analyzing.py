"""The schema of `lth analyze`: where to look, and one section for each question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from lth_cli.config.references import Reference, is_round
from lth_cli.config.schema import DataPlace
from lth_cli.config.steps import Duration
from lth_cli.config.values import Interval, Section


def _state(value: Any) -> str:
    """A round may arrive from the command line as an integer."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("write ROUND@STEP of the run, or RUN:ROUND@STEP")
    Reference.parse(f"run:{text}" if is_round(text) else text)
    return text.strip()


StateName = Annotated[str, BeforeValidator(_state)]
"""`3@end`, `random/3@500it` of the run asked about, or `RUN:3@end` of any."""


def _round(value: Any) -> str:
    """A round of each RUN, without a step."""
    text = str(value).strip()
    if isinstance(value, bool) or not is_round(text) or "@" in text:
        raise ValueError(f"{value!r} is no round; write 0, 3, last, random/3")
    return text


RoundName = Annotated[str, BeforeValidator(_round)]
"""`0`, `15`, `last`, `random/15`: a round of each run asked about."""


def _moment(value: Any) -> str:
    """`start`, or a step in its canonical spelling."""
    if value == "start":
        return "start"
    try:
        return str(Duration.parse(value))
    except ValueError as error:
        raise ValueError(f"{error}; or start") from None


Moment = Annotated[str, BeforeValidator(_moment)]
"""`start` of a training, or a step of it."""

Split = Literal["train", "val", "test"]


class Measured(Section):
    """What is measured at points between trained states."""

    splits: Annotated[list[Split], Field(min_length=1)] = Field(
        ["train", "test"], description="Examples that error and loss are measured on: train, val, test."
    )
    batch_norm: Literal["interpolated", "recomputed"] = Field(
        "interpolated",
        description="Batch-norm statistics between states: interpolated like weights, or recomputed there by a pass "
        "over the training set.",
    )

    @field_validator("splits")
    @classmethod
    def _each_once(cls, splits: list[Split]) -> list[Split]:
        if len(set(splits)) < len(splits):
            raise ValueError("names a split twice")
        if "test" not in splits:
            raise ValueError("must name test, by whose error states are compared")
        return splits


class Line(Measured):
    """How error is measured on the line between two states (Frankle et al. 2020, arXiv:1912.05671)."""

    points: Annotated[int, Field(ge=3, le=10_000)] = Field(
        30, description="Evenly spaced points on the line, both ends included."
    )
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.02,
        description="Barrier of the test error below which two states count as connected; of objectives that know "
        "no error, of the test loss.",
    )


class Connectivity(Line):
    """Error and loss on the line between pairs of states, and its barrier."""

    name: Literal["connectivity"]
    states: list[StateName] = Field(
        ["0@end", "last@end"],
        description="Every two of these states make a pair. A state without a run is one of each RUN asked about.",
    )
    pairs: list[Annotated[list[StateName], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list, description="Pairs named one by one, in the place of states."
    )


class Instability(Line):
    """Whether copies of a training that differ in the order of the data end linearly connected."""

    name: Literal["instability"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0"], description="Trainings that are copied: rounds of each RUN; random/15 is a control's."
    )
    at: Annotated[list[Moment], Field(min_length=1)] = Field(
        ["start"],
        description="Steps k from which copies are trained: start, 0, 500it, 2ep; several give the curve.",
    )
    copies: Annotated[int, Field(ge=2, le=100)] = Field(
        2, description="Copies trained from each step; every two of them make a pair."
    )
    schedule: Literal["resumed", "restarted"] = Field(
        "resumed",
        description="resumed: copies go on at step k of the schedule. restarted: they train the whole schedule.",
    )


class Rounds(Line):
    """Whether the ends of successive rounds are linearly connected, and whether rounds match."""

    name: Literal["rounds"]
    rounds: Literal["all"] | Annotated[list[RoundName], Field(min_length=1)] = Field(
        "all",
        description="Rounds of each RUN, beside the dense one: all finished ones, or a list; random/15 is a control's.",
    )
    tolerance: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="How far below the mean dense test accuracy a round still matches: 0.002 is 0.2 points; null is "
        "one standard deviation of the dense accuracy over the RUNs. Of other objectives, how much worse their "
        "headline metric may be.",
    )


class Perturbation(Line):
    """Whether a training ends in the same linearly connected place when its start is moved."""

    name: Literal["perturbation"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0"], description="Rounds of each RUN whose starts are moved; each needs the round after it."
    )
    directions: Annotated[list[Literal["projection", "random"]], Field(min_length=1)] = Field(
        ["projection", "random"],
        description="Where to: projection sets the weights to zero that the next round prunes; random is a Gaussian "
        "direction among the weights of the round.",
    )
    norms: list[Annotated[float, Field(gt=0.0)]] = Field(
        [1.0], description="How far, as multiples of the norm of the projection."
    )
    absolute_norms: list[Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=list, description="How far, as L2 norms; beside norms, which may be []."
    )
    draws: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="Random directions drawn at each round."
    )

    @model_validator(mode="after")
    def _some_norm(self) -> Perturbation:
        if not self.norms and not self.absolute_norms:
            raise ValueError("norms and absolute_norms are both empty; name one")
        for name in ("directions", "norms", "absolute_norms", "rounds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice")
        return self


class Curvature(Section):
    """The Hessian of the training loss at states: largest eigenvalues, trace, diagonal, spectral density."""

    name: Literal["curvature"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end", "last@end"], description="A state without a run is one of each RUN asked about."
    )
    subspace: Literal["mask", "all"] = Field(
        "mask",
        description="Weights the Hessian is of: mask (prunable weights that the round's mask keeps), or all "
        "(every parameter, pruned weights, biases and batch norm included).",
    )
    examples: Annotated[int, Field(ge=1)] = Field(
        1000, description="Training examples in the loss, drawn by the seed, without augmentation."
    )
    eigenvalues: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="Largest eigenvalues sought, by Lanczos."
    )
    eigenvalue_tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        1e-4, description="Relative accuracy of the eigenvalues; 0 is that of the arithmetic."
    )
    probes: Annotated[int, Field(ge=2, le=100_000)] = Field(
        50, description="Random vectors for trace and diagonal, a Hessian-vector product each."
    )
    density_probes: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="Random vectors for the spectral density."
    )
    density_steps: Annotated[int, Field(ge=2, le=1000)] = Field(
        50, description="Products for each of those; as many vectors are held in memory."
    )
    density_points: Annotated[int, Field(ge=2, le=100_000)] = Field(
        401, description="Points at which the density is tabulated."
    )
    density_width: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.01,
        description="Standard deviation of the Gaussians that smooth the density, as a share of its range.",
    )
    rise: Annotated[float, Field(gt=0.0)] = Field(
        0.01,
        description="Rise of the loss (nats an example) tolerated in the bound on the fraction prunable at once.",
    )
    tolerance: Annotated[float, Field(ge=0.0)] = Field(
        0.002,
        description="A round matches with a test accuracy of at least the dense one less this; of other objectives, "
        "how much worse their headline metric may be.",
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Numbers that products are computed in."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(200, description="Examples a pass; bounds memory.")
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="Of the examples drawn and of all random vectors."
    )


class Landscape(Measured):
    """Error and loss on the plane through three states, or the one that four trained seeds span."""

    name: Literal["landscape"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end", "1@end", "last@end"],
        description="Three states, or four; one without a run is one of each RUN asked about.",
    )
    grid: Annotated[int, Field(ge=2, le=1000)] = Field(
        21, description="Evenly spaced points along each axis: grid x grid evaluations of every split."
    )
    margin: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.2, description="How far the grid goes beyond the states, as a share of their extent along the axis."
    )


class Agreement(Section):
    """How far trainings that differ by chance alone agree, by example (Cooper et al. 2022, arXiv:2206.11834)."""

    name: Literal["agreement"]
    rounds: Annotated[list[RoundName], Field(min_length=1)] = Field(
        ["0", "last"],
        description="Rounds compared side by side, each over all RUNs: 0 is dense; random/15 is a control's.",
    )
    split: Split = Field("test", description="Examples that are classified: train, val, test.")


class Examples(Section):
    """What trainings find easy and hard: scores of every training example, by its position in the data set."""

    name: Literal["examples"]
    states: Annotated[list[StateName], Field(min_length=1)] = Field(
        ["0@end"],
        description="Steps of one training of each RUN, rising. Loss, margin, EL2N and GraNd are those of the last; "
        "over several, forgetting is counted too.",
    )
    grand: bool = Field(True, description="Also measure GraNd, which takes a gradient for every example.")
    between: list[StateName] = Field(
        default_factory=list,
        description="Two states, such as [0@end,OTHER:0@end], at whose midpoint the barrier of each example is "
        "measured; empty is none.",
    )

    @field_validator("states")
    @classmethod
    def _of_each_run(cls, states: list[str]) -> list[str]:
        for state in states:
            if not is_round(state):
                raise ValueError(f"{state!r} names a run; write ROUND@STEP, a step of a training of each RUN")
        return states

    @field_validator("between")
    @classmethod
    def _none_or_two(cls, states: list[str]) -> list[str]:
        if len(states) not in (0, 2):
            raise ValueError("takes two states, or none")
        return states


class Masks(Section):
    """What masks have in common against chance, and which weights retraining makes small."""

    name: Literal["masks"]
    rounds: list[RoundName] = Field(
        default_factory=list,
        description="Rounds of each RUN whose masks are compared; random/15 is a control's. Empty is every finished "
        "round after the dense one.",
    )
    bins: Annotated[int, Field(ge=2, le=10_000)] = Field(
        50, description="Bins of the histograms of log10 |w|."
    )


Analysis = Annotated[
    Connectivity | Instability | Rounds | Perturbation | Curvature | Landscape | Agreement | Examples | Masks,
    Field(discriminator="name"),
]


class Checkpoints(Section):
    """How much work a crash may cost where states have to be trained."""

    every: Interval = Field(
        "60s", description="Steps (500it, 1ep) or time (60s, 10min) between resume points."
    )


class Analyze(Section):
    """Everything that says what `lth analyze` does."""

    runs_dir: Annotated[str, Field(min_length=1)] = Field(
        "runs", description="Folder of runs (LTH_RUNS_DIR)."
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = Field(
        "auto", description="For runs whose own device this machine does not have; others keep theirs."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto", description="Compute threads, where `device` is used."
    )
    data: DataPlace = DataPlace()
    checkpoint: Checkpoints = Checkpoints()
    analysis: Analysis


def sections() -> dict[str, type[Section]]:
    """The section of each question, by its name."""
    union = get_args(Analysis)[0]
    members = get_args(union) or (union,)
    return {get_args(member.model_fields["name"].annotation)[0]: member for member in members}


def known_keys(name: str | None = None) -> Iterator[tuple[str, FieldInfo]]:
    """Every key of `lth analyze` with its field; those of one question, or of all."""
    for key, field in Analyze.model_fields.items():
        if key in ("data", "checkpoint"):
            section: type[Section] = DataPlace if key == "data" else Checkpoints
            yield from ((f"{key}.{inner}", found) for inner, found in section.model_fields.items())
        elif key == "analysis":
            for asked, questions in sections().items():
                if name in (None, asked):
                    yield from (
                        (f"analysis.{inner}", found) for inner, found in questions.model_fields.items()
                    )
        else:
            yield key, field
