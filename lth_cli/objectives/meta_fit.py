"""Meta-learning of a start from which a few steps fit any image as a function of coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from lth_cli.config.errors import ConfigError
from lth_cli.config.metrics import Metric
from lth_cli.config.spec import Interface, Spec
from lth_cli.objectives.objective import Batch, Loss, Objective, mean_of, require

_SMALLEST = 1e-30


class MetaFit(Objective):
    """MAML with second-order gradients (Finn et al. 2017, arXiv:1703.03400) over images as signals (Tancik et al. 2021,
    arXiv:2012.02189; Lee et al. 2021, arXiv:2110.14678).

    An example is an image [C, H, W], whatever its label. From the weights of the network, `steps` steps of gradient
    descent fit its colours by coordinates in [-1, 1] (row, column), on all pixels; the loss is the squared error after
    them, and its gradient passes through these steps. Evaluation fits unseen images likewise.

    A weight of a matrix that is exactly zero stays zero in these steps, so that pruned weights stay pruned.

    Args:
        steps: of gradient descent on an image in training.
        rate: of these steps.
        evaluation_steps: of gradient descent in evaluation; null is as in training.
        peak: the range of an image's values, for the PSNR, 10 log10(peak^2 / MSE), mean over images: 1 where
            `dataset.normalize` leaves them in [0, 1] (mean 0, std 1), 1 / std where it scales them.
        loss: a person's own, (colours [B, pixels, C], batch) -> mean over the batch, of what is minimised.
    """

    metrics = (Metric("psnr", "higher", "dB"),)
    several_processes = False  # its gradients are not those of the model's own forward pass

    def __init__(
        self,
        *,
        steps: PositiveInt = 2,
        rate: Annotated[float, Field(gt=0.0)] = 1e-2,
        evaluation_steps: PositiveInt | None = None,
        peak: Annotated[float, Field(gt=0.0)] = 1.0,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(loss=loss)
        self._steps, self._rate, self._peak = steps, rate, peak
        self._evaluation_steps = steps if evaluation_steps is None else evaluation_steps

    def interface(self, spec: Spec) -> Interface:
        """Two coordinates in, the colours of a pixel out."""
        require(spec, "meta_fit", {"inputs": "float32"})
        shape = spec.shapes["inputs"]
        if len(shape) != 3:
            raise ConfigError(
                (
                    "objective",
                    f"meta_fit is of images [channels, height, width]; these inputs have shape {shape}",
                )
            )
        return Interface((2,), "float32", (shape[0],), {"outputs": shape[0]})

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Colours of each image after the steps on it, [B, pixels, C]."""
        images = batch["inputs"]
        height, width = images.shape[2:]
        lines = [torch.linspace(-1, 1, count, device=images.device) for count in (height, width)]
        places = torch.cartesian_prod(*lines)
        steps = self._steps if model.training else self._evaluation_steps
        start: dict[str, Tensor] = dict(model.named_parameters())
        kept = {name: (weight != 0).to(weight.dtype) for name, weight in start.items() if weight.ndim > 1}

        def error(weights: dict[str, Tensor], colours: Tensor) -> Tensor:
            return functional.mse_loss(functional_call(model, weights, (places,)), colours)

        def fitted(colours: Tensor) -> Tensor:
            weights = start
            for _ in range(steps):
                slopes = grad(error)(weights, colours)
                weights = {
                    name: weight - self._rate * (slopes[name] * kept[name] if name in kept else slopes[name])
                    for name, weight in weights.items()
                }
            found: Tensor = functional_call(model, weights, (places,))
            return found

        answered: Tensor = vmap(fitted)(_colours(images))
        return answered

    def task(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error over images, pixels and channels."""
        return functional.mse_loss(outputs, _colours(batch["inputs"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Sums over the images of the mean squared error of each, and of its PSNR."""
        errors = (outputs - _colours(batch["inputs"])).square().flatten(1).mean(1)
        ratios = 10 * torch.log10(self._peak**2 / errors.clamp(min=_SMALLEST))
        return {"loss": errors.sum(), "psnr": ratios.sum()}

    def summarize(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Mean squared error and PSNR, means over images."""
        return {"loss": mean_of(totals, "loss"), "psnr": mean_of(totals, "psnr")}


def _colours(images: Tensor) -> Tensor:
    """Of images [B, C, H, W], by pixel in the order of `torch.cartesian_prod` of rows and columns: [B, H * W, C]."""
    return images.flatten(2).transpose(1, 2)
