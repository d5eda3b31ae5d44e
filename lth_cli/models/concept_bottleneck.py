"""Networks that say which concepts an input has, and tell its class by those alone."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.models.torchvision_model import torchvision_model

Link = Literal["independent", "sequential", "joint", "joint_probabilities"]
"""What the second half is given, in training and afterwards."""


class ConceptBottleneck(nn.Module):
    """Inputs to concepts to class (Koh et al. 2020, arXiv:2007.04612; Shin et al. 2023, arXiv:2302.14260).

    | link | second half trains on | and is given later |
    | --- | --- | --- |
    | independent | true concepts | probabilities |
    | sequential | logits, through which nothing flows back | logits |
    | joint | logits | logits |
    | joint_probabilities | probabilities | probabilities |

    Args:
        input_shape: of an example.
        classes: number of class logits.
        concepts: number of concept logits.
        hidden: widths of the hidden layers from inputs to concepts, where no backbone is named.
        backbone: a classifier of torchvision in their place, for images of 3 channels; null is none.
        link: see above.
        options: further keyword arguments of the backbone.

    Raises:
        ConfigError: no such backbone, or options without one.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        concepts: int,
        hidden: list[PositiveInt] | None = None,
        backbone: str | None = None,
        link: Link = "independent",
        **options: Any,
    ) -> None:
        super().__init__()
        if backbone is None and options:
            raise ConfigError(
                *((f"model.{key}", "is of a backbone, and model.backbone names none") for key in options)
            )
        if backbone is None:
            size = math.prod(input_shape)
            layers: list[nn.Module] = [nn.Flatten()]
            widths = [size, *(hidden or [])]
            for inputs, outputs in pairwise(widths):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            self.encoder: nn.Module = nn.Sequential(*layers, nn.Linear(widths[-1], concepts))
        else:
            self.encoder = torchvision_model(
                input_shape=input_shape, classes=concepts, name=backbone, **options
            )
        self.head = nn.Linear(concepts, classes)
        self.link = link

    @property
    def of_probabilities(self) -> bool:
        """Whether the second half is given probabilities of concepts, not logits."""
        return self.link in ("independent", "joint_probabilities")

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """Logits of concepts and then of classes, [N, concepts + classes].

        Args:
            x: inputs [N, ...].
            told: in training the true concepts, float [N, concepts].
        """
        logits = self.encoder(x)
        given = logits.sigmoid() if self.of_probabilities else logits
        if told is not None and self.link == "independent":
            given = told
        elif told is not None and self.link == "sequential":
            given = logits.detach()
        return torch.cat([logits, self.head(given)], dim=1)
