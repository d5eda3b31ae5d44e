"""A training set as a model: its examples are the parameters."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Interface
from lth_cli.models.build import build, has_randomness


class Condensed(nn.Module):
    """Synthetic examples of each class, and the network that is trained on them at the moment.

    Examples are as a network sees them, after normalisation, and start as noise N(0, 1). The weights of the network are
    buffers: they belong to every state, and no optimizer steps on them; `update=gradient_matching` draws and trains
    them. What the model answers is what that network answers.

    Args:
        input_shape: of an example.
        classes: number of labels.
        network: architecture that learns from the examples; without batch norm or dropout.
        per_class: examples of each class.

    Attributes:
        images: a layer whose weight has an example a row, flattened, class by class.
        network: see above.

    Raises:
        ConfigError: at `model.network`.
    """

    update = "gradient_matching"

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        network: schema.Model,
        per_class: PositiveInt = 10,
    ) -> None:
        super().__init__()
        self.classes, self.per_class = classes, per_class
        self._shape, self._section = input_shape, network
        self.images = nn.Linear(math.prod(input_shape), classes * per_class, bias=False)
        nn.init.normal_(self.images.weight)
        self.network = self._drawn(0)
        if next(self.network.buffers(), None) is not None or has_randomness(self.network):
            raise ConfigError(
                (
                    "model.network",
                    f"{network.target} has statistics of its own or draws random numbers; gradients are matched with "
                    "networks that do neither, such as mlp and instance_convnet",
                )
            )
        for module in self.network.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach())

    @property
    def examples(self) -> Tensor:
        """[classes, per_class, *input_shape], a view."""
        return self.images.weight.view(self.classes, self.per_class, *self._shape)

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Give the network new weights, those of this seed."""
        fresh = dict(self._drawn(seed).named_parameters())
        for name, weight in self.network.named_buffers():
            weight.copy_(fresh[name])

    def _drawn(self, seed: int) -> nn.Module:
        try:
            return build(self._section, Interface.classifier(self._shape, self.classes), seed)
        except ConfigError as error:
            problems = [(f"model.network{path.removeprefix('model')}", what) for path, what in error.problems]
            raise ConfigError(*problems) from error

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of inputs [N, *input_shape]."""
        logits: Tensor = self.network(x)
        return logits
