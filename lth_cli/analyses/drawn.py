"""Training examples drawn by a seed, for analyses of a part of them; in the arithmetic that they choose."""

from __future__ import annotations

import torch
from torch import Tensor

from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.data.batches import Batch
from lth_cli.experiments.recorded import Recorded


def check_drawn(recorded: Recorded, count: int, dtype: str) -> None:
    """Refuse more examples than there are, and numbers that the device does not have.

    Raises:
        RequestError: at `analysis.examples` or `analysis.dtype`.
    """
    there = recorded.plan.dense.data.sizes["train"]
    if count > there:
        raise RequestError(
            f"analysis.examples: {recorded.run.name} has {there} training examples, not {count}"
        )
    if dtype == "float64" and recorded.plan.dense.execution.device.type == "mps":
        raise RequestError("analysis.dtype: mps has no float64; accepted there: float32")


def drawn_examples(work: Work, recorded: Recorded, count: int, seed: int) -> Batch:
    """Training examples drawn without replacement, in stored order, without augmentation; on the device."""
    data = recorded.plan.dense.data
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(data.sizes["train"], generator=generator)[:count].sort().values
    found: dict[str, list[Tensor]] = {name: [] for name in data.spec.shapes}
    before = 0
    for batch in data.evaluation("train"):
        work.check_stop()
        size = len(next(iter(batch.values())))
        inside = drawn[(drawn >= before) & (drawn < before + size)] - before
        for name, tensor in batch.items():
            found[name].append(tensor[inside.to(tensor.device)])
        before += size
    return {name: torch.cat(tensors) for name, tensors in found.items()}
