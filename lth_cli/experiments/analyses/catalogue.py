"""Every analysis by name: what checks the question and returns the study that answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lth_cli.experiments.analyses import (
    agreement,
    connectivity,
    curvature,
    examples,
    instability,
    landscape,
    masks,
    perturbation,
    rounds,
)
from lth_cli.experiments.analyses.request import Request, Study

PREPARE: dict[str, Callable[[Request, Any], Study]] = {
    "agreement": agreement.prepare,
    "connectivity": connectivity.prepare,
    "curvature": curvature.prepare,
    "examples": examples.prepare,
    "instability": instability.prepare,
    "landscape": landscape.prepare,
    "masks": masks.prepare,
    "perturbation": perturbation.prepare,
    "rounds": rounds.prepare,
}


def prepare(request: Request) -> Study:
    """Check a question; nothing is written.

    Raises:
        RequestError: states that are not there, networks that cannot be compared.
    """
    asked = request.config.analysis
    return PREPARE[asked.name](request, asked)
