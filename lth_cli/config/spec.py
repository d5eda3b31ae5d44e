"""What an example of a data set is made of, and what goes into a model and comes out: plain values between rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spec:
    """An example of a data set.

    Attributes:
        shapes: of each of its tensors by name, without the batch dimension.
        dtypes: of each, as torch names them: `float32`, `int64`.
        sizes: what it counts, by name: `classes`, `vocabulary`; of texts also the numbers of `SPECIAL` tokens.
        names: of the columns of a tensor, by its name, where they have such; `GROUP::NAME` where they belong together.
        grouped: the tensor by which examples are groups, all of one in a training batch; None where batches are any.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    grouped: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the `inputs` of data that have such. Raises KeyError."""
        return self.shapes["inputs"]

    @property
    def classes(self) -> int:
        """Of data that have such. Raises KeyError."""
        return self.sizes["classes"]

    @classmethod
    def classified(cls, input_shape: tuple[int, ...], classes: int) -> Spec:
        """Inputs with a label each."""
        return cls(
            {"inputs": tuple(input_shape), "labels": ()},
            {"inputs": "float32", "labels": "int64"},
            {"classes": classes},
        )


SPECIAL = ("padding", "unknown", "begin", "end", "mask")
"""Tokens that stand for no word, by what they are for."""


def special_tokens(spec: Spec) -> dict[str, int]:
    """The numbers of the special tokens that data of texts have, by what they are for."""
    return {name: spec.sizes[name] for name in SPECIAL if name in spec.sizes}


@dataclass(frozen=True)
class Interface:
    """What a model is built for.

    Attributes:
        input_shape: of what it is given, without the batch dimension.
        input_dtype: as torch names it.
        output_shape: of what it must return, without the batch dimension.
        sizes: what else it may be told by keyword: `classes`, `vocabulary`, `length`.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    sizes: Mapping[str, int]

    @classmethod
    def classifier(cls, input_shape: tuple[int, ...], classes: int) -> Interface:
        """Inputs in, logits of classes out."""
        return cls(tuple(input_shape), "float32", (classes,), {"classes": classes})

    @property
    def plain(self) -> tuple[Any, ...]:
        """A value that can be a key."""
        return (self.input_shape, self.input_dtype, self.output_shape, tuple(sorted(self.sizes.items())))

    @classmethod
    def of_plain(cls, plain: tuple[Any, ...]) -> Interface:
        """Back from `plain`."""
        input_shape, input_dtype, output_shape, sizes = plain
        return cls(input_shape, input_dtype, output_shape, dict(sizes))

    @property
    def supplied(self) -> dict[str, Any]:
        """Keyword arguments that the program has for an architecture."""
        return {"input_shape": self.input_shape, **self.sizes}

    def __str__(self) -> str:
        sizes = "".join(f", {count} {name}" for name, count in self.sizes.items())
        return f"inputs of shape {self.input_shape}{sizes}"
