"""Which parameters are weights of convolution and linear maps, for pruning and initialising alike."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The output projection of attention is a linear layer of its own; these are its input projections, either
# joined or, where keys or values have another width, separate.
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def weights_and_biases(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights and biases of the convolution or linear maps that a module holds itself (not its children).

    Returns:
        Two lists, empty for any other module. A weight that is computed from other parameters (as by
        `torch.nn.utils.parametrize`) is not a parameter and left out.
    """
    if isinstance(module, _WEIGHTED):
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
        if isinstance(module, _WEIGHTED):
            yield name, module
