"""What teachers answer, kept on disk: self-verifying files of tensors, mapped into memory rather than read.

They lie in the shared store under the digest of a description of the teachers, the data and the arithmetic, so that
every student of the same teachers on the same data finds them, and `lth gc` frees them like any other work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lth_cli.store.files import Damaged, Gone, digest, write_within
from lth_cli.store.tensors import map_tensors, write_tensors
from lth_cli.store.trajectories import TrajectoryStore

_KIND = "answers"


class TeacherOutputs:
    """The answers under one description.

    Args:
        store: of the runs folder.
        description: plain values that decide every answer.

    Attributes:
        identity: SHA-256 of the description.
    """

    def __init__(self, store: TrajectoryStore, description: dict[str, Any]) -> None:
        self.identity = digest(description)
        self._store = store
        self._description = description

    def load(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part, verified and mapped: read only. Empty when absent; damaged ones are set aside.

        Raises:
            ReadFailed, NewerFormat: the file is there and cannot be read.
        """
        path = self._store.folder(self.identity) / f"{part}.safetensors"
        try:
            tensors, about = map_tensors(path, _KIND)
            if about.get("of") != self.identity or about.get("part") != part:
                raise Damaged(path, "answers to something else")
            return tensors
        except Gone:
            return {}
        except Damaged as damage:
            self._store.set_aside(path, damage)
            return {}

    def save(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a part, in the place of what was there. Raises WriteFailed."""
        path = self._store.folder(self.identity) / f"{part}.safetensors"

        def write() -> None:
            self._store.describe(self.identity, self._description)
            write_tensors(path, _KIND, tensors, {"of": self.identity, "part": part})

        with self._store.lock(self.identity).acquire(wait=True):
            self._store.clear_leftovers(self.identity)  # of a writer that was killed
            write_within(path.parent, write)
