"""Parameters and multiply-adds of a model.

Counted are the products of weights of convolution and linear maps (those that `prunable` lists), each product with its
addition as one multiply-add: every weight as often as it is used in a forward pass of one example. A zero that pads an
image counts as any value. Not counted, as in most papers: biases, norms, activations, pooling, look-ups of embeddings,
and the products of activations with each other inside attention.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.spec import Interface
from lth_cli.models.build import build, check_fit
from lth_cli.models.layers import outputs_of, weighted_layers

_TAKEN = ("query", "key", "value")
_EXAMPLES = 2  # on which `check_fit` tries a model


@dataclass(frozen=True)
class Cost:
    """What a dense model is made of, and what a forward pass of one example takes.

    Attributes:
        sizes: number of elements of every parameter, by name.
        products: multiply-adds of every weight, by name.
    """

    sizes: dict[str, int]
    products: dict[str, int]

    @property
    def dense_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(self.sizes.values())

    @property
    def dense_madds(self) -> int:
        """Multiply-adds of a forward pass of one example."""
        return sum(self.products.values())

    def parameters(self, kept: Mapping[str, int]) -> int:
        """Parameters that remain.

        Args:
            kept: number of remaining elements of each tensor with a mask; all others are whole.
        """
        return self.dense_parameters - sum(self.sizes[name] - count for name, count in kept.items())

    def madds(self, kept: Mapping[str, int]) -> int:
        """Multiply-adds of a forward pass of one example in which pruned weights cost nothing.

        All weights of a tensor are used equally often, but for the joint input projection of attention whose queries
        are not as many as its keys: there the mean over the tensor is taken, rounded down.
        """
        return sum(
            products * kept[name] // self.sizes[name] if name in kept else products
            for name, products in self.products.items()
        )


def cost(config: schema.Model, interface: Interface) -> Cost:
    """The cost of a configured model. Raises as `build`."""
    return _cost(config.model_dump_json(), interface.plain)


@functools.lru_cache(maxsize=64)  # asked for every round, and a model is slow to build
def _cost(config: str, plain: tuple[Any, ...]) -> Cost:
    interface = Interface.of_plain(plain)
    return cost_of(build(schema.Model.model_validate_json(config), interface, init_seed=0), interface)


def cost_of(model: nn.Module, interface: Interface) -> Cost:
    """The cost of a model, found by trying it on two examples of zeros.

    A layer used several times counts each time; one that is not used counts nothing. What is computed once for a whole
    batch counts half.

    Args:
        model: on the CPU.
        interface: what goes in, what must come out.

    Raises:
        ConfigError: it does not fit.
    """
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    products: dict[str, int] = {}

    def add(weight: Tensor, place: str, count: int) -> None:
        name = names.get(weight, place)  # one that is computed from other parameters goes by its place
        products[name] = products.get(name, 0) + count

    def layer_used(place: str, layer: Any, _: Any, out: Tensor) -> None:
        add(layer.weight, f"{place}.weight", layer.weight.numel() * (out.numel() // outputs_of(layer)))

    def attention_used(place: str, attention: Any, given: Any, by_name: Any) -> None:
        taken = dict(zip(_TAKEN, given, strict=False)) | by_name
        widths = dict(zip(_TAKEN, (attention.embed_dim, attention.kdim, attention.vdim), strict=True))
        uses = {part: taken[part].numel() // width for part, width in widths.items()}
        for part, width in widths.items():
            joint = attention.in_proj_weight is not None  # a third of it for each
            name = "in_proj_weight" if joint else f"{part[0]}_proj_weight"
            add(getattr(attention, name), f"{place}.{name}", attention.embed_dim * width * uses[part])
        # The output projection is used without being called.
        add(attention.out_proj.weight, f"{place}.out_proj.weight", attention.embed_dim**2 * uses["query"])

    hooks = [
        layer.register_forward_hook(functools.partial(layer_used, name))
        for name, layer in weighted_layers(model)
    ]
    hooks += [
        module.register_forward_pre_hook(functools.partial(attention_used, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    try:
        check_fit(model, "the model", interface)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return Cost(sizes, {name: total // _EXAMPLES for name, total in products.items()})
