"""How many bytes of activations are held for a backward pass at most."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class _Held:
    """A tensor that autograd holds."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def peak_held(compute: Callable[[], Any], parameters: Iterable[Tensor]) -> int:
    """The most bytes that autograd holds at once while something is computed and differentiated.

    All that is saved for a backward pass counts once, however often: outputs of layers, and inputs and labels of the
    batch where they are saved as they are. Parameters do not count, nor their gradients, nor what only the computation
    itself needs for a moment.

    Args:
        compute: a forward and a backward pass.
        parameters: of the network.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    times: Counter[int] = Counter()
    now = peak = 0

    def release(place: int, size: int) -> None:
        nonlocal now
        times[place] -= 1
        if not times[place]:
            now -= size

    def pack(tensor: Tensor) -> _Held:
        nonlocal now, peak
        held, storage = _Held(tensor.detach()), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in own:
            if not times[place]:
                now += size
                peak = max(peak, now)
            times[place] += 1
            weakref.finalize(held, release, place, size)
        return held

    with saved_tensors_hooks(pack, lambda held: held.tensor):
        compute()
    return peak
