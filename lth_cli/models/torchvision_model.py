"""Any image classifier of torchvision, by name."""

from __future__ import annotations

import difflib
from typing import Any

import torchvision
from torch import nn

from lth_cli.config.errors import ConfigError
from lth_cli.models.shapes import image_shape

_REFUSED = {
    "weights": "pretrained weights cannot be loaded; training starts from the initial weights of seeds.init",
    "num_classes": "comes from the data set",
    "aux_logits": "auxiliary classifiers cannot be trained; they are left out",
}


def torchvision_model(*, input_shape: tuple[int, ...], classes: int, name: str, **options: Any) -> nn.Module:
    """Build `torchvision.models.NAME` without pretrained weights.

    GoogLeNet and Inception-v3 come without their auxiliary classifiers, since a model here gives one set of
    logits.

    Args:
        input_shape: (3, height, width); some architectures fix the size (`image_size` of a vision
            transformer).
        classes: number of logits.
        name: one of `torchvision.models.list_models(module=torchvision.models)`, for example `resnet50`.
        options: further keyword arguments of that architecture.

    Raises:
        ConfigError: when there is no such classifier, an option is not open to a config, or the inputs are
            not images of 3 channels.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=5)
        hint = f"close to it: {', '.join(close)}" if close else f"there are: {', '.join(known)}"
        raise ConfigError(("model.name", f"torchvision has no classifier {name!r}; {hint}"))
    refused = [(f"model.{key}", reason) for key, reason in _REFUSED.items() if key in options]
    if refused:
        raise ConfigError(*refused)
    image_shape(input_shape, model=f"torchvision's {name}", channels=3)
    if name in {"googlenet", "inception_v3"}:
        # Their default of init_weights only adds a warning about its own future.
        options = {"aux_logits": False, "init_weights": True, **options}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return model
