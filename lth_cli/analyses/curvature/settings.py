"""What `lth analyze analysis=curvature` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lth_cli.analyses.settings import StateName
from lth_cli.config.values import Section


class Settings(Section):
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
