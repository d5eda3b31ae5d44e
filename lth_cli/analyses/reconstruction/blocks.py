"""The blocks of a causal language model of transformers: found, given their inputs, run and trained one at a time."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Call = Callable[[nn.Module, Tensor], Tensor]
"""What a block makes of activations [B, L, width]."""
_LIKELIEST = 50


class _Caught(Exception):
    """A pass is ended as soon as the first block has been given its inputs."""


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The row of blocks, in order; empty where there is none."""
    rows = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(rows, key=len, default=nn.ModuleList())


def linear_layers(block: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a block by name; those of GPT-2 are Conv1D with weights [inputs, outputs]."""
    return {
        name: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }


def upright(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight or mask of a layer as [outputs, inputs], or back again."""
    return weight if isinstance(module, nn.Linear) else weight.T


@torch.no_grad()
def first_inputs(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Call]:
    """What the first block is given for texts int64 [N, L], [N, L, width], and how a block is run.

    All tokens are attended to: running text has no padding.
    """
    parts: list[Tensor] = []
    more: dict[str, Any] = {}

    def catch(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        parts.append(given[0] if given else named["hidden_states"])
        more.update(named)
        raise _Caught

    handle = blocks_of(model)[0].register_forward_pre_hook(catch, with_kwargs=True)
    library = cast(Any, type(model).__mro__[1])  # below the network that takes tokens alone
    try:
        # One by one: what else blocks are given then has one row, which fits any batch.
        for rows in torch.split(tokens, 1):
            with contextlib.suppress(_Caught):
                library.forward(model, input_ids=rows)
    finally:
        handle.remove()
    named = {
        name: value
        for name, value in more.items()
        if name not in ("hidden_states", "cache", "past_key_values", "use_cache")
    }

    def call(block: nn.Module, activations: Tensor) -> Tensor:
        answered = block(activations, **named)
        return cast(Tensor, answered[0] if isinstance(answered, tuple) else answered)

    return torch.cat(parts), call


@torch.no_grad()
def passed(call: Call, blocks: Sequence[nn.Module], activations: Tensor, batch: int) -> Tensor:
    """What blocks in a row make of activations [N, L, width]."""
    found = []
    for part in torch.split(activations, batch):
        answered = part
        for block in blocks:
            answered = call(block, answered)
        found.append(answered)
    return torch.cat(found)


def grams(
    call: Call, blocks: Sequence[nn.Module], layers: Sequence[nn.Module], activations: Tensor, batch: int
) -> list[Tensor]:
    """Of each layer, the mean over texts of the sum over tokens of x x^T of its inputs x, [inputs, inputs]."""
    sums: dict[int, Tensor] = {}

    def add(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0].flatten(0, -2).float()
            sums[number] = sums.get(number, 0) + x.T @ x

        return hook

    handles = [layer.register_forward_pre_hook(add(number)) for number, layer in enumerate(layers)]
    try:
        passed(call, blocks, activations, batch)
    finally:
        for handle in handles:
            handle.remove()
    return [sums[number] / len(activations) for number in range(len(layers))]


def error(answered: Tensor, wanted: Tensor, batch: int) -> float:
    """Mean squared difference between activations [N, L, width]."""
    parts = [
        functional.mse_loss(ours, theirs, reduction="sum")
        for ours, theirs in zip(torch.split(answered, batch), torch.split(wanted, batch), strict=True)
    ]
    return torch.stack(parts).double().sum().item() / wanted.numel()


def train(
    call: Call,
    blocks: Sequence[nn.Module],
    masks: Sequence[tuple[nn.Module, Tensor]],
    inputs: Tensor,
    targets: Tensor,
    orders: Iterator[Tensor],
    *,
    epochs: int,
    batch: int,
    lr: float,
    check: Callable[[], None],
) -> None:
    """Train all parameters of blocks towards targets with AdamW (0.9, 0.95); masks (True = kept) hold throughout.

    Args:
        call: runs a block.
        blocks: in a row.
        masks: of linear layers, in the shape of their weights.
        inputs: [N, L, width].
        targets: [N, L, width].
        orders: of the N texts, int64 [N], one an epoch.
        epochs: how many.
        batch: texts in a step; the last of an epoch may have fewer.
        lr: falls linearly to 0 over all steps.
        check: called before each step.
    """
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    steps = epochs * -(-len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for rows in torch.split(next(orders), batch):
            check()
            answered = inputs[rows]
            for block in blocks:
                answered = call(block, answered)
            optimizer.zero_grad()
            torch.autograd.backward(functional.mse_loss(answered, targets[rows]))
            for layer, mask in masks:
                weight = cast(Tensor, layer.weight)
                assert weight.grad is not None
                weight.grad *= mask
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()  # else gradients of every block done would stay, as large as the network


@torch.no_grad()
def written(
    model: nn.Module, count: int, length: int, vocabulary: int, batch: int, generator: torch.Generator
) -> Tensor:
    """Texts that a causal model writes, int64 [count, length] on the CPU.

    Each begins with a random token and four that are likeliest; the rest is drawn, each of the 50 likeliest, as in the
    authors' code by the library's default. A text goes on beyond an end token, and is kept in whatever language.
    """
    library = cast(Any, type(model).__mro__[1])
    # transformers renamed what a model knows of earlier tokens; the old name goes with release 5.40.
    memory = "cache" if "cache" in inspect.signature(library.forward).parameters else "past_key_values"
    device = next(model.parameters()).device
    found = []
    for size in [batch] * (count // batch) + [count % batch] * (count % batch > 0):
        texts = torch.randint(vocabulary, (size, 1), generator=generator)
        last, past = texts, None
        for place in range(1, length):
            answered = library.forward(
                model, input_ids=last.to(device), use_cache=True, return_dict=True, **{memory: past}
            )
            past, logits = answered[memory], answered.logits[:, -1, :vocabulary].float().cpu()
            if place <= 4:
                last = logits.argmax(1, keepdim=True)
            else:
                likeliest, numbers = logits.topk(min(_LIKELIEST, vocabulary))
                last = numbers.gather(1, likeliest.softmax(1).multinomial(1, generator=generator))
            texts = torch.cat([texts, last], 1)
        found.append(texts)
    return torch.cat(found)
