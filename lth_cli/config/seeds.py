"""Seeds derived from seeds: every use of randomness gets a generator of its own."""

from __future__ import annotations

import hashlib
import json


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """The seed of one use of randomness, such as the order of one epoch.

    Different purposes or numbers give unrelated seeds; the same ones give the same seed on every machine and
    in every version of Python, which `hash()` does not.

    Args:
        seed: a seed of the config, for example `seeds.order`.
        purpose: what the randomness is for, for example `"order"`.
        numbers: which instance of it, for example the epoch.

    Returns:
        The first 63 bits of the SHA-256 of the arguments, so that it fits a signed 64-bit integer.
    """
    text = json.dumps([seed, purpose, *numbers], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
