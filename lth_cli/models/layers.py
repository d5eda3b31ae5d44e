"""Which parameters are weights of convolution and linear maps, for pruning and initialising alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The output projection of attention is a linear layer of its own; these are its input projections, either
# joined or, where keys or values have another width, separate.
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def outputs_of(layer: Any) -> int:
    """How many outputs, or channels of such, a convolution or linear layer has."""
    if isinstance(layer, nn.Linear):
        return int(layer.out_features)
    return int(layer.weight.shape[1] if _is_turned(layer) else layer.out_channels)


def turned(model: nn.Module) -> list[str]:
    """Names of the weights that lie [inputs, outputs], those of GPT-2, in order of definition."""
    ours = {name for name, module in model.named_modules() if _is_turned(module)}
    return [name for name, _ in model.named_parameters() if name.removesuffix(".weight") in ours]


def _is_turned(module: nn.Module) -> bool:
    """Whether this is the linear layer of transformers' GPT-2, called Conv1D, with weights [inputs, outputs]."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def weights_and_biases(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights and biases of the convolution or linear maps that a module holds itself (not its children).

    Returns:
        Two lists, empty for any other module. A weight that is computed from other parameters (as by
        `torch.nn.utils.parametrize`) is not a parameter and left out.
    """
    if isinstance(module, _WEIGHTED) or _is_turned(module):
        weights, biases = ["weight"], ["bias"]
    elif isinstance(module, nn.MultiheadAttention):
        weights, biases = list(_ATTENTION_WEIGHTS), ["in_proj_bias"]
    else:
        return [], []
    own = dict(module.named_parameters(recurse=False))
    return [own[name] for name in weights if name in own], [own[name] for name in biases if name in own]


def weighted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolution and linear layers with their module names, in order of definition."""
    for name, module in model.named_modules():
        if isinstance(module, _WEIGHTED) or _is_turned(module):
            yield name, module
