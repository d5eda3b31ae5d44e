"""One round of a run: its mask, checkpoints, metrics and summary."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_cli.config.errors import RequestError
from lth_cli.store.files import (
    Damaged,
    ReadFailed,
    link_or_copy,
    make_folder,
    read_sealed,
    sha256_file,
    write_sealed,
)
from lth_cli.store.lines import read_lines, rewrite_lines
from lth_cli.store.masks import load_mask, save_mask
from lth_cli.store.states import State, load_state, save_state, state_name, stored_steps
from lth_cli.store.tensors import read_tensors, refuse_newer, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Of the summary."""
PREDICTIONS = "predictions"
"""Kind of the file of answers."""
_PREFIX = "round_"


@dataclass(frozen=True)
class Round:
    """A round folder, there or not yet. It is finished once it has a summary, which is written last."""

    number: int
    folder: Path

    @classmethod
    def within(cls, parent: Path, number: int) -> Round:
        """Round `number` below the folder of a run or of one of its branches."""
        return cls(number, parent / f"{_PREFIX}{number:02d}")

    @classmethod
    def all_within(cls, parent: Path) -> list[Round]:
        """Every round folder below the folder of a run or of one of its branches, ascending."""
        names = [path.name[len(_PREFIX) :] for path in parent.glob(f"{_PREFIX}*") if path.is_dir()]
        numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        rounds = [cls.within(parent, number) for number in numbers]
        return [round_ for round_ in rounds if round_.folder.is_dir()]

    @property
    def mask_path(self) -> Path:
        """Where the mask lies."""
        return self.folder / "mask.safetensors"

    @property
    def predictions_path(self) -> Path:
        """Where the answers of its end lie, where they are kept."""
        return self.folder / "predictions.safetensors"

    def save_predictions(self, tensors: dict[str, Tensor], trajectory: str, step: int) -> None:
        """Write what the end of the round answers.

        Args:
            tensors: by split, `SPLIT_outputs` float32 [N, ...] and `SPLIT_positions` int64 [N], where these examples
                lie in the training (`val`) or test set as loaded.
            trajectory: identity of the training.
            step: of the state.

        Raises:
            WriteFailed.
        """
        make_folder(self.folder)
        about = {"trajectory": trajectory, "step": step}
        write_tensors(self.predictions_path, PREDICTIONS, tensors, about)

    def predictions(self) -> dict[str, Tensor]:
        """What `save_predictions` was given. Raises Damaged, ReadFailed, NewerFormat."""
        return read_tensors(self.predictions_path, PREDICTIONS)[0]

    @property
    def summary_path(self) -> Path:
        """Where the summary lies."""
        return self.folder / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether everything of the round has been written."""
        return self.summary_path.is_file()

    def masks(self) -> dict[str, Tensor]:
        """The mask of each pruned tensor (bool, True = kept). Raises Damaged, ReadFailed, NewerFormat."""
        return load_mask(self.mask_path)

    def save_masks(self, masks: dict[str, Tensor]) -> None:
        """Write the mask of each pruned tensor. Raises WriteFailed; ValueError when one is not boolean."""
        make_folder(self.folder)
        save_mask(self.mask_path, masks)

    def checkpoints(self) -> dict[int, Path]:
        """The round's state files by step, ascending."""
        return stored_steps(self.folder / "checkpoints")

    def checkpoint(self, step: int) -> State:
        """The state at a step, verified.

        Raises:
            RequestError: the round keeps no state of that step.
            Damaged, ReadFailed, NewerFormat.
        """
        stored = self.checkpoints()
        if step not in stored:
            kept = ", ".join(map(str, stored)) or "none"
            raise RequestError(f"{self.folder} has no checkpoint at step {step}; stored: {kept}")
        state = load_state(stored[step])
        if state.step != step:
            raise Damaged(stored[step], f"it holds step {state.step}")
        return state

    def add_checkpoint(self, step: int, source: Path) -> None:
        """Keep a state file of the store: a hard link, or a copy. Raises WriteFailed, ReadFailed."""
        make_folder(self.folder / "checkpoints")
        link_or_copy(source, self.folder / "checkpoints" / state_name(step))

    def save_checkpoint(self, state: State, trajectory: str) -> None:
        """Write a state that the store does not hold. Raises WriteFailed; ValueError as `save_state`."""
        make_folder(self.folder / "checkpoints")
        save_state(self.folder / "checkpoints" / state_name(state.step), state, trajectory)

    def metrics(self) -> list[dict[str, Any]]:
        """The round's evaluations; [] when none are written. Raises Damaged, ReadFailed."""
        return read_lines(self.folder / "metrics.jsonl")

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write the round's evaluations, replacing earlier ones. Raises WriteFailed; ValueError on NaN."""
        make_folder(self.folder)
        rewrite_lines(self.folder / "metrics.jsonl", lines)

    @property
    def summary(self) -> dict[str, Any]:
        """What `write_summary` was given, with `files`: SHA-256 by relative path.

        Raises:
            Damaged: it does not match its own checksum, or is malformed.
            NewerFormat: a newer release wrote it.
            ReadFailed: there is none yet, or it cannot be read.
        """
        return read_sealed(self.summary_path, FORMAT)

    def refuse_newer(self) -> None:
        """Raise NewerFormat where a newer release wrote any file of the round; damage is found by others."""
        with contextlib.suppress(Damaged, ReadFailed):
            if self.finished:
                self.summary  # noqa: B018 - read for its format
        with contextlib.suppress(Damaged, ReadFailed):
            self.metrics()
        for path in (self.mask_path, self.predictions_path, *self.checkpoints().values()):
            refuse_newer(path)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Finish the round: record the checksums of its files, then the summary. Call it last.

        Raises:
            WriteFailed: it cannot be written.
            ReadFailed: a file of the round cannot be read.
            ValueError: on NaN or infinity.
        """
        make_folder(self.folder)
        files = {path.relative_to(self.folder).as_posix(): sha256_file(path) for path in self._files()}
        write_sealed(self.summary_path, {**summary, "files": files})

    def _files(self) -> list[Path]:
        """The round's own files: what programs and file systems leave beside them is none of its content."""
        further = [self.folder / "metrics.jsonl", self.predictions_path]
        own = [self.mask_path, *further, *self.checkpoints().values()]
        return sorted(path for path in own if path.is_file())
