"""Any `torch.optim` class, its state keyed by parameter names."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.targets import check_arguments, locate
from lth_cli.pruning.mask import Masks
from lth_cli.training.decoupled_sgd import DecoupledSGD

_REFUSED: dict[type[torch.optim.Optimizer], str] = {
    torch.optim.LBFGS: "evaluates the loss several times a step",
    torch.optim.SparseAdam: "takes sparse gradients alone",
}


# Each adds to a weight a multiple of its gradient, of moving averages of it, of the weight, or of a quotient of these
# over a root plus eps: all are zero where gradient, averages and weight are.
_KEEP_ZEROS = (torch.optim.SGD, DecoupledSGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)


def keeps_zeros(optimizer: torch.optim.Optimizer) -> bool:
    """Whether steps leave a weight at zero that has no gradient, where the optimizer's state began at zero."""
    return type(optimizer) in _KEEP_ZEROS and all(
        group.get("eps", 1.0) > 0 for group in optimizer.param_groups
    )


def build(config: schema.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over all parameters of a model.

    The fused implementation is used where the class has one: on small nets it halves the cost of a step.

    Raises:
        ConfigError: when the class is not an optimizer that steps on gradients alone, or refuses its settings.
    """
    target = locate(config.target, "optimizer._target_")
    if not (inspect.isclass(target) and issubclass(target, torch.optim.Optimizer)):
        raise ConfigError(("optimizer._target_", f"{config.target!r} is not a torch.optim.Optimizer"))
    for refused, reason in _REFUSED.items():
        if issubclass(target, refused):
            raise ConfigError(("optimizer._target_", f"{refused.__name__} {reason}; use a first-order one"))
    given = {"lr": config.lr, **config.arguments}
    arguments = check_arguments(target, _tuples(given), "optimizer", supplied=("params",))
    accepted = inspect.signature(target).parameters
    if "fused" in accepted and not {"fused", "foreach", "differentiable", "capturable"} & arguments.keys():
        device = next(model.parameters()).device.type
        # Adagrad's has no CUDA kernel, which it says in its first step alone.
        lacking = device == "cuda" and issubclass(target, torch.optim.Adagrad)
        arguments["fused"] = device in ("cpu", "cuda", "mps") and not lacking
    try:
        return target(model.parameters(), **arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(("optimizer", str(error).splitlines()[0])) from error


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where torch.optim wants tuples (betas, etas)."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def export_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Copies on the CPU of the optimizer's tensors, by parameter name and state key.

    Raises:
        ConfigError: when the optimizer keeps something that is not a tensor, which no checkpoint could hold.
    """
    exported: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        entries = {k: v for k, v in optimizer.state.get(parameter, {}).items() if v is not None}
        for key, value in entries.items():
            if not isinstance(value, Tensor):
                kind = type(optimizer).__name__
                raise ConfigError(
                    ("optimizer._target_", f"{kind} keeps {key!r} as {type(value).__name__}, not a tensor")
                )
        if entries:
            exported[name] = {key: value.detach().cpu().clone() for key, value in entries.items()}
    return exported


def import_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, dict[str, Tensor]]
) -> None:
    """Put exported tensors into a new optimizer; an empty state leaves it as it is."""
    plain = optimizer.state_dict()
    # Adagrad has a state before its first step; not every torch makes it again.
    plain["state"] |= {
        index: {key: _laid_out_like(parameter, value) for key, value in state[name].items()}
        for index, (name, parameter) in enumerate(model.named_parameters())
        if name in state
    }
    optimizer.load_state_dict(plain)


def masked(state: dict[str, dict[str, Tensor]], masks: Masks) -> dict[str, dict[str, Tensor]]:
    """An exported state with zeros where a weight is pruned, so that nothing of it lives on.

    Args:
        state: by parameter name and key; what has not the shape of its parameter, such as a count, is left as it is.
        masks: True = kept.
    """
    return {
        name: {
            key: torch.where(masks[name], value, 0)
            if name in masks and value.shape == masks[name].shape
            else value
            for key, value in entries.items()
        }
        for name, entries in state.items()
    }


def touch(state: dict[str, dict[str, Tensor]], masks: Masks) -> bool:
    """Whether an exported state holds anything but zero of a pruned weight.

    Args:
        state: by parameter name and key; what has not the shape of its parameter is not looked at.
        masks: True = kept; on any device.
    """
    return any(
        bool(value[~masks[name].to(value.device)].any())
        for name, entries in state.items()
        if name in masks
        for value in entries.values()
        if value.shape == masks[name].shape
    )


def check_maskable(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer whose state mixes weights, kept and pruned; a step is tried, which may change the model.

    Raises:
        ConfigError: it keeps tensors that are neither single numbers nor of the shape of their parameter.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, entries in export_state(optimizer, model).items():
        for key, value in entries.items():
            if value.numel() > 1 and value.shape != shapes[name]:
                what = f"{type(optimizer).__name__} keeps {key!r} over several weights of {name} together"
                raise ConfigError(
                    ("rewind.optimizer", f"{what}, so that pruned ones would live on in it; use fresh")
                )


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy in the memory layout of its parameter: fused kernels pair elements by their place in memory."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
