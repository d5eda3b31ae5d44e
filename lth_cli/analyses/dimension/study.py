"""How many dimensions do the training examples have, seen from their nearest neighbours?

Maximum likelihood by Levina and Bickel (2004): m_k(x) = [1/(k-1) sum_{j<k} log(T_k(x) / T_j(x))]^-1 with T_j(x) the
distance of x to its j-th nearest neighbour; over the examples the inverse of the mean of the inverses, after MacKay and
Ghahramani (2005), as Pope et al. (2021, arXiv:2104.08894) do for images.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lth_cli.analyses.dimension.settings import Settings
from lth_cli.analyses.drawing import number
from lth_cli.analyses.request import Answer, Request, Study, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.batches import Data
from lth_cli.store.analyses import Row


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    if len(request.runs) > 1:
        raise RequestError("analysis=dimension is of the data of one RUN")
    data = request.state("0", request.runs[0]).recorded.plan.dense.data
    if data.spec.dtypes.get("inputs") != "float32":
        raise RequestError("analysis=dimension needs inputs that are numbers")
    return Study(
        "dimension",
        request.runs[0],
        {**settings(asked), "data": data.identity},
        {},
        functools.partial(_answer, asked=asked, data=data),
    )


def _answer(work: Work, *, asked: Settings, data: Data) -> Answer:
    inputs = torch.cat([batch["inputs"].flatten(1).cpu() for batch in data.evaluation("train")])
    generator = torch.Generator().manual_seed(derive_seed(asked.seed, "dimension"))
    chosen = torch.randperm(len(inputs), generator=generator)[: asked.examples]
    # An example that is there twice would have a neighbour at no distance.
    points = torch.from_numpy(np.unique(inputs[chosen].double().numpy(), axis=0))
    most = max(asked.neighbours)
    if len(points) <= most:
        raise RequestError(
            f"analysis.neighbours: {most} are more than {len(points)} distinct training examples have"
        )
    rows: list[Row] = [
        {
            "neighbours": k,
            "dimension": dimension(points, k),
            "examples": len(points),
            "values": points.shape[1],
        }
        for k in asked.neighbours
    ]
    found = [number(row, "dimension") for row in rows]
    headline = [
        f"intrinsic dimension {min(found):.1f} to {max(found):.1f}; an example has {points.shape[1]:,} values"
    ]
    return Answer({"dimension": rows}, {"dimension": statistics.fmean(found)}, headline)


def dimension(points: Tensor, neighbours: int) -> float:
    """The intrinsic dimension of distinct points, float64 [N, values], from so many nearest neighbours of each."""
    inverses: Sequence[float] = inverse_dimensions(points, neighbours).tolist()
    return 1.0 / statistics.fmean(inverses)


def inverse_dimensions(points: Tensor, neighbours: int) -> Tensor:
    """1 / m_k of every point, float64 [N]; see the module."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=neighbours).fit(points.numpy())
    distances = torch.from_numpy(search.kneighbors()[0])  # without the point itself, ascending
    return (distances[:, -1:] / distances[:, :-1]).log().mean(1)
