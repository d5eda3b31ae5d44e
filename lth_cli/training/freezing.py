"""Tensors that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth_cli.config.errors import ConfigError
from lth_cli.models.build import output_tensors


def frozen(model: nn.Module, chosen: Sequence[str]) -> list[str]:
    """Names of the parameters that `training.freeze` chooses, in order of definition.

    Raises:
        ConfigError: as `chosen_tensors`, or nothing is left to train.
    """
    found = chosen_tensors(model, chosen, "training.freeze")
    if found and len(found) == len(list(model.parameters())):
        raise ConfigError(("training.freeze", f"{list(chosen)} leaves nothing to train"))
    return found


def chosen_tensors(model: nn.Module, chosen: Sequence[str], where: str) -> list[str]:
    """Names of the parameters that a list chooses, in order of definition.

    Args:
        model: of any architecture.
        chosen: `batch_norm` (scale and shift), `output` (the output layer), `others` (all but these two), as open_lth's
            batchnorm_frozen, output_frozen and others_frozen; or patterns of names.
        where: config path for errors.

    Raises:
        ConfigError: when one of them chooses nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    if not chosen:
        return []
    layers = {name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    norms = {name for name in names if name.rpartition(".")[0] in layers}
    output = set(output_tensors(model))
    groups = {"batch_norm": norms, "output": output, "others": set(names) - norms - output}
    found: set[str] = set()
    for choice in chosen:
        matching = groups.get(choice, {name for name in names if fnmatchcase(name, choice)})
        if not matching:
            raise ConfigError(
                (
                    where,
                    f"{choice!r} is no tensor of the model; accepted: batch_norm, output, others, or patterns of "
                    f"{', '.join(names)}",
                )
            )
        found |= matching
    return [name for name in names if name in found]


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Leave out gradients of these parameters, so that no optimizer moves them: neither decay nor momentum."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)
