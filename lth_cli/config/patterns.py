"""The grammar of `pruning.pattern`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pattern:
    """A pattern by its name in the config.

    Attributes:
        kind: `n_of_m`, `block`, `channel` or `fan_in`.
        first: N, or the outputs of a block.
        second: M, or the inputs of a block.
        pool: how a block's scores become one.
    """

    kind: Literal["n_of_m", "block", "channel", "fan_in"]
    first: int = 0
    second: int = 0
    pool: Literal["mean", "max"] = "mean"

    @property
    def whole(self) -> bool:
        """Whether sets of weights go as wholes."""
        return self.kind in ("block", "channel")


def parse_pattern(text: str) -> Pattern | None:
    """The pattern that `pruning.pattern` names; None where weights go one by one.

    Raises:
        ValueError: it names none.
    """
    if text == "unstructured":
        return None
    if text in ("channel", "fan_in"):
        return Pattern("channel" if text == "channel" else "fan_in")
    if match := re.fullmatch(r"(\d{1,4}):(\d{1,4})", text, re.ASCII):
        kept, size = int(match[1]), int(match[2])
        if not 0 < kept < size:
            raise ValueError(
                f"{text} keeps {kept} of {size} weights; write for example 2:4, which keeps 2 of 4"
            )
        return Pattern("n_of_m", kept, size)
    if match := re.fullmatch(r"block_([1-9]\d{0,3})x([1-9]\d{0,3})(_max)?", text, re.ASCII):
        return Pattern("block", int(match[1]), int(match[2]), "max" if match[3] else "mean")
    raise ValueError(
        f"{text!r} is no pattern; accepted: unstructured, N:M such as 2:4 (N of M are kept), block_4x4, block_4x4_max, "
        "channel, fan_in"
    )
