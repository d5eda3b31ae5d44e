"""A small causal transformer."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config.errors import ConfigError


class Block(nn.Module):
    """Attention to what came before and a hidden layer, each on a normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden_in = nn.Linear(width, 4 * width)
        self.hidden_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, width] to the same."""
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.attention_in(self.attention_norm(x)).chunk(3, 2)
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        added: Tensor = self.hidden_out(functional.gelu(self.hidden_in(self.hidden_norm(x))))
        return x + added


class GPT(nn.Module):
    """A transformer that predicts the next token (Radford et al. 2019, GPT-2): learned places, norms before layers.

    The output layer has weights of its own. Weights of linear layers and embeddings are normal with deviation 0.02,
    those that lead back into the sum divided by the root of their number, biases zero.

    Args:
        vocabulary: number of tokens.
        length: tokens it sees at most.
        width: of the residual stream.
        depth: blocks.
        heads: of attention; a divisor of `width`.

    Raises:
        ConfigError: `heads` is no divisor of `width`.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        width: PositiveInt = 64,
        depth: PositiveInt = 2,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(("model.heads", f"{heads} is no divisor of model.width={width}"))
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                deviation = 0.02 / ((2 * depth) ** 0.5 if name.endswith("_out") else 1.0)
                nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens int64 [N, L] to logits of the next one [N, L, vocabulary]."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
