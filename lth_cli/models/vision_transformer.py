"""Vision transformers that say what their class token attends to."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from lth_cli.config.errors import ConfigError


class Attention(nn.Module):
    """Self-attention over tokens [N, L, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2)
        )
        return queries, keys, values

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attended tokens [N, L, width]; the first one's attention to the others, mean over heads [N, L - 1]."""
        queries, keys, values = self._projected(x)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        with torch.no_grad():
            first = (queries[:, :, :1] @ keys.transpose(2, 3)) * queries.shape[-1] ** -0.5
            attention = first.softmax(-1).mean(1)[:, 0, 1:]
        return self.proj(attended.transpose(1, 2).flatten(2)), attention


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, width] to the same."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and a hidden layer, each on a normalised input and added to it."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)
        self.dropout = drop_path

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, L, width] to the same, with the attention of the first token [N, L - 1]."""
        added, attention = self.attn(self.norm1(x))
        x = x + self._dropped(added)
        return x + self._dropped(self.mlp(self.norm2(x))), attention

    def _dropped(self, added: Tensor) -> Tensor:
        if not self.training or self.dropout == 0.0:
            return added
        kept = torch.rand(len(added), 1, 1, device=added.device) >= self.dropout
        return added * kept / (1.0 - self.dropout)


class PatchEmbed(nn.Module):
    """Images [N, C, H, W] to tokens [N, patches, width]."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens row by row."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class VisionTransformer(nn.Module):
    """DeiT without distillation token (Touvron et al. 2021, arXiv:2012.12877); tensors have the names of timm's.

    After a forward pass `class_attention` [N, patches] is the last block's attention of the class token to the
    patches, mean over heads, and `features` [N, width] the normalised class token. Linear weights, class token and
    positions are truncated normal with deviation 0.02, linear biases zeros; the convolution of patches starts as torch
    draws it.

    Args:
        input_shape: of an example, [C, H, W].
        classes: number of logits.
        patch: side of a patch in pixels; a divisor of both sides of the image.
        width: of the residual stream.
        depth: blocks.
        heads: of attention; a divisor of `width`.
        drop_path: probability that each of a block's two branches is left out for an example in training, rising
            linearly from 0.

    Raises:
        ConfigError: no image, or sizes that do not divide.
    """

    class_attention: Tensor | None = None
    features: Tensor | None = None

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        patch: PositiveInt = 16,
        width: PositiveInt = 192,
        depth: PositiveInt = 12,
        heads: PositiveInt = 3,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(("model.heads", f"{heads} is no divisor of model.width={width}"))
        if len(input_shape) != 3 or input_shape[1] % patch or input_shape[2] % patch:
            raise ConfigError(
                ("model.patch", f"inputs of shape {input_shape} are no images of patches {patch} wide")
            )
        if not 0.0 <= drop_path < 1.0:
            raise ConfigError(("model.drop_path", f"{drop_path} is no probability below 1"))
        channels, height, breadth = input_shape
        self.grid = (height // patch, breadth // patch)
        self.patches = self.grid[0] * self.grid[1]
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patches, width))
        self.patch_embed = PatchEmbed(channels, patch, width)
        rates = torch.linspace(0.0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(Block(width, heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for tensor in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def __getstate__(self) -> dict[str, Any]:
        # What the last pass left belongs to its graph of gradients, which no copy can have.
        return {
            name: value for name, value in vars(self).items() if name not in ("class_attention", "features")
        }

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits [N, classes].

        Args:
            x: images [N, C, H, W].
            kept: patches to look at, int64 [N, k], numbered row by row; None looks at all.
        """
        tokens = self.patch_embed(x) + self.pos_embed[:, 1:]
        if kept is not None:
            tokens = tokens.gather(1, kept.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        attention = None
        for block in self.blocks:
            tokens, attention = block(tokens)
        self.class_attention = attention
        features = self.norm(tokens[:, 0])
        self.features = features if self.training else features.detach()
        logits: Tensor = self.head(features)
        return logits
