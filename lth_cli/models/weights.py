"""Weights from elsewhere by the names of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lth_cli.config.errors import ConfigError
from lth_cli.models.build import output_tensors

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_OF_HEADS = ("pooler",)  # modules of a body that not all of its weights come with


def renamed(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors under the names of an architecture where it has them, in fp32; others keep theirs.

    The body of a language model may go without the prefix that it has below a head (`bert.`); the norms of the first
    BERT had other names; and a tensor that the architecture shares may stand under another of its names.

    Args:
        model: of the architecture.
        tensors: by name.
    """
    ours = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    prefix = getattr(model, "base_model_prefix", "")
    named: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        name = given
        for old, new in _OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if prefix and name not in ours and f"{prefix}.{name}" in ours:
            name = f"{prefix}.{name}"
        named[name] = tensor.detach().float()
    primary = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = primary[id(parameter)]
        if name != first and name in named:
            shared = named.pop(name)
            named.setdefault(first, shared)
    return named


@dataclass(frozen=True)
class Fit:
    """What weights have for an architecture.

    Attributes:
        fresh: tensors of its head that they lack.
        unused: tensors that they have beside.
    """

    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def fit(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], label: str, where: str) -> Fit:
    """Whether weights fit an architecture, but for its head.

    Args:
        model: of the architecture.
        shapes: of the weights by name.
        label: what to call them in errors.
        where: config path for errors.

    Raises:
        ConfigError: a tensor has another shape, or one of the body is not among them.
    """
    ours = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    head = _head(model)
    other = [name for name in ours if name in shapes and shapes[name] != ours[name] and name not in head]
    if other:
        told = "; ".join(
            f"{name} is {list(shapes[name])} there, {list(ours[name])} here" for name in other[:3]
        )
        raise ConfigError(
            (
                where,
                f"the weights of {label} do not fit the model: {told}. Rows of an embedding are the tokenizer's tokens "
                "(model.rows where it has more), or model.positions; the rest are sizes of the model",
            )
        )
    fresh = [name for name in ours if shapes.get(name) != ours[name]]
    missing = [name for name in fresh if name not in head]
    if missing:
        raise ConfigError(
            (
                where,
                f"{label} has no {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''} for the model",
            )
        )
    return Fit(tuple(fresh), tuple(name for name in shapes if name not in ours))


def _head(model: nn.Module) -> set[str]:
    """Names of what weights of another task may lack: what lies beside the body of a language model, and its pooler; of
    any other network the output layer."""
    prefix = getattr(model, "base_model_prefix", "")
    names = [name for name, _ in model.named_parameters()]
    if not prefix or not any(name.startswith(f"{prefix}.") for name in names):
        return set(output_tensors(model))
    poolers = tuple(f"{prefix}.{module}." for module in _OF_HEADS)
    return {name for name in names if not name.startswith(f"{prefix}.") or name.startswith(poolers)}
