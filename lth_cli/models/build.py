"""From a model section of the config to a module, and what the other rooms ask about a module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.config.sources import where_own
from lth_cli.config.spec import Interface
from lth_cli.config.targets import check_arguments, locate
from lth_cli.models.initialize import initialize
from lth_cli.models.layers import weighted_layers, weights_and_biases

# What an objective may have for an architecture; of no other argument can it be said who should give it.
_SUPPLIED = {
    "input_shape",
    "classes",
    "concepts",
    "outputs",
    "vocabulary",
    "length",
    "padding",
    "token_classes",
    "span_ends",
    "environments",
    "states",
}
# Packages whose modules draw random numbers in training only where `_drop_probabilities` finds it.
_READ_PACKAGES = {"torch", "torchvision", "lth_cli"}
_ALWAYS_RANDOM = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)

# What was tried in this process and fits: a study or sweep builds a network for each of its points.
_FITTING: set[tuple[Any, ...]] = set()

_CHANNEL_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def build(config: schema.Model, interface: Interface, init_seed: int) -> nn.Module:
    """Build and initialise a model on the CPU: the same bytes for the same seed.

    The global random state is left as it was. Before it is returned the model is tried on two examples of
    zeros, in evaluation mode, unless one like it was.

    Args:
        config: the architecture, its arguments, and the initialiser.
        interface: what goes in, what must come out.
        init_seed: decides the initial weights.

    Returns:
        A module in training mode that maps [N, *input_shape] to [N, *output_shape].

    Raises:
        ConfigError: at config path `model` or below it, when there is no such architecture, its arguments are
            wrong, or it does not fit the data set.
    """
    function = locate(config.target, "model._target_")
    missing = sorted(_needed(function) & _SUPPLIED - interface.supplied.keys() - config.arguments.keys())
    if missing:
        problem = f"{config.target} needs {', '.join(missing)}, which this data set and objective do not give"
        raise ConfigError(("model", problem))
    arguments = check_arguments(function, config.arguments, "model", supplied=tuple(interface.supplied))
    supplied = _accepted(function, interface.supplied)
    with _seeded(derive_seed(init_seed, "model.build")):
        try:
            model = function(**supplied, **arguments)
        except ConfigError:
            raise
        except Exception as error:
            problem = (
                f"{config.target} cannot be built for {_data(interface)}: {_brief(error)}{where_own(error)}"
            )
            raise ConfigError(("model", problem)) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                ("model._target_", f"{config.target} returned {type(model).__name__}, not a torch.nn.Module")
            )
        # Inside the seeded block and before initialising, because lazy modules draw their parameters here.
        made_of = (function, repr(sorted(arguments.items())), interface.plain)
        if made_of not in _FITTING:
            drawn = not any(map(is_lazy, model.parameters()))
            check_fit(model, config.target, interface)
            if drawn and is_known(model):  # what others wrote may change in its first pass
                _FITTING.add(made_of)
    initialize(model, config.init, init_seed)
    return model


def prunable(model: nn.Module, *, biases: bool) -> list[str]:
    """Names of the weights of convolution and linear maps, in order of definition.

    Args:
        model: weights of nn.Linear, nn.Conv1d to nn.Conv3d, their subclasses, and the input projections of
            nn.MultiheadAttention are taken.
        biases: whether to list their biases too, each after its layer's weights.

    Returns:
        Names as in `model.named_parameters()`; a parameter shared by several layers is listed once.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, None] = {}
    for module in model.modules():
        module_weights, module_biases = weights_and_biases(module)
        found.update(dict.fromkeys(names[p] for p in module_weights + (module_biases if biases else [])))
    return list(found)


def channel_followers(model: nn.Module, interface: Interface) -> dict[str, str]:
    """What goes with an output channel of a convolution or linear layer, by the name of that layer's weight: its bias,
    and scale and shift of the norm that takes what it gives, found by trying the model on two examples of zeros.

    Returns:
        Names of parameters, all of shape [outputs], each with the name of the weight.
    """
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    followers: dict[str, str] = {}
    given: dict[int, tuple[Tensor, str]] = {}  # the tensors, too, so that no other has their number

    def note(layer: nn.Module, _: Any, out: Tensor) -> None:
        given[id(out)] = out, names[layer.weight]

    def take(norm: nn.Module, taken: tuple[Tensor, ...]) -> None:
        if norm.affine and id(taken[0]) in given:
            of = given[id(taken[0])][1]
            followers.update({names[norm.weight]: of, names[norm.bias]: of})

    hooks = []
    for _, layer in weighted_layers(model):
        if layer.weight not in names:
            continue
        if layer.bias is not None:
            followers[names[layer.bias]] = names[layer.weight]
        hooks.append(layer.register_forward_hook(note))
    hooks += [
        module.register_forward_pre_hook(take)
        for module in model.modules()
        if isinstance(module, _CHANNEL_NORMS)
    ]
    try:
        check_fit(model, "the model", interface)
    finally:
        for hook in hooks:
            hook.remove()
    return followers


def output_layer(model: nn.Module) -> str:
    """Module name of the last linear layer, or of the last convolution where no layer is linear.

    Raises:
        ConfigError: when the model has neither.
    """
    layers = list(weighted_layers(model))
    linear = [name for name, module in layers if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError(("model", "has no convolution or linear layer, so there is nothing to prune"))
    return linear[-1] if linear else layers[-1][0]


def output_tensors(model: nn.Module) -> list[str]:
    """Names of the output layer's weight and bias, as `prunable` lists them.

    A tensor that it shares with another layer goes by its first name, which is that of the other.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    weights, biases = weights_and_biases(model.get_submodule(output_layer(model)))
    return [names[parameter] for parameter in weights + biases]


def new_head(config: schema.Model, before: Interface, after: Interface, where: str) -> tuple[str, ...]:
    """Names of the output layer's parameters, which a model for other classes cannot take over.

    Args:
        config: the architecture.
        before: what the model is for whose weights are taken over.
        after: what the model is for that takes them.
        where: config path to name in the error.

    Raises:
        ConfigError: when what differs decides the shape of any other tensor.
    """
    theirs, ours = (build(config, interface, init_seed=0) for interface in (before, after))
    head = set(output_tensors(ours))
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (theirs, ours)]
    other = [name for name in sorted(shapes[0] | shapes[1]) if shapes[0].get(name) != shapes[1].get(name)]
    if beyond := [name for name in other if name not in head]:
        raise ConfigError(
            (
                where,
                f"it has {_sizes(before)}, the training {_sizes(after)}, and beside the output layer "
                f"{output_layer(ours)} that "
                f"changes {', '.join(beyond[:5])}; only an output layer can be drawn anew",
            )
        )
    return tuple(sorted(head))


def has_randomness(model: nn.Module) -> bool:
    """Whether a forward pass in training may draw random numbers, so that each step needs a seed of its own.

    Dropout of any kind and stochastic depth count when their probability is above 0; randomised ReLU and
    fractional pooling always do. A forward method outside torch, torchvision and this package cannot be
    looked into: it may call `torch.nn.functional.dropout`, so it counts as random, which costs a seeding a
    step and changes no number of a model that draws none.
    """
    return not is_known(model) or any(
        isinstance(module, _ALWAYS_RANDOM)
        or any(probability > 0 for probability in _drop_probabilities(module))
        for module in model.modules()
    )


def is_known(model: nn.Module) -> bool:
    """Whether every module is of torch, torchvision or this package."""
    return all(type(module).__module__.partition(".")[0] in _READ_PACKAGES for module in model.modules())


def draws_in_training(config: schema.Model, interface: Interface) -> bool:
    """Whether a configured model `has_randomness`. Raises as `build`."""
    return _draws_in_training(config.model_dump_json(), interface.plain)


@functools.lru_cache(maxsize=64)  # asked for every trajectory, and a model is slow to build
def _draws_in_training(config: str, plain: tuple[Any, ...]) -> bool:
    model = schema.Model.model_validate_json(config)
    return has_randomness(build(model, Interface.of_plain(plain), init_seed=0))


def check_fit(model: nn.Module, target: str, interface: Interface) -> None:
    """Try the model on two examples of zeros, in evaluation mode; its training modes and buffers are afterwards as
    they were.

    Args:
        model: on the CPU.
        target: what to call it in the error.
        interface: what goes in, what must come out.

    Raises:
        ConfigError: at config path `model`, when it does not fit.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if not is_lazy(buffer)}
    model.eval()
    try:
        with torch.no_grad():
            dtype = getattr(torch, interface.input_dtype)
            outputs = model(torch.zeros(2, *interface.input_shape, dtype=dtype))
    except Exception as error:
        problem = f"{target} does not fit {_data(interface)}: {_brief(error)}{where_own(error)}"
        raise ConfigError(("model", problem)) from error
    for module, training in modes:
        module.training = training
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    expected = (2, *interface.output_shape)
    if not isinstance(outputs, Tensor) or outputs.shape != expected:
        given = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        wanted = f"{'logits' if 'classes' in interface.sizes else 'outputs'} of shape {expected} are needed"
        problem = f"{target} gives {given} for two examples of {_data(interface)}; {wanted}"
        raise ConfigError(("model", problem))


def _drop_probabilities(module: nn.Module) -> Iterator[float]:
    """Probabilities with which a module of torch, torchvision or this package drops values in training."""
    # `p` is that of dropout and stochastic depth alone: torch also calls the norm of a distance `p`.
    names = ["dropout", "attention_dropout", "drop_rate"]
    if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
        names.append("p")
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, int | float):
            yield float(value)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from this seed on the CPU inside the block; the global random state is restored after it."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed, which would also seed the accelerators' generators.
        torch.default_generator.manual_seed(seed)
        yield


def _accepted(function: Callable[..., Any], supplied: dict[str, Any]) -> dict[str, Any]:
    """Those of the supplied arguments that the function takes by keyword."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return supplied
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in supplied.items() if name in named}


def _needed(function: Callable[..., Any]) -> set[str]:
    """Names of the arguments that a function cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.default is p.empty}


def _sizes(interface: Interface) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in interface.sizes.items())


def _data(interface: Interface) -> str:
    return f"the data set ({interface})"


def _brief(error: Exception) -> str:
    """The first line of an error, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
