"""A run and its rounds for Python programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_cli.api.tables import frame
from lth_cli.config.errors import RequestError
from lth_cli.config.schema import DataPlace
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run as StoredRun

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor, nn
    from torch.utils.data import TensorDataset

    from lth_cli.experiments.opened import Step
    from lth_cli.experiments.recorded import Recorded
    from lth_cli.store.states import State


def run(path: str | Path, *, trust: bool = False, data_root: str | None = None) -> Run:
    """Open a run; nothing of it is executed.

    Args:
        path: its folder.
        trust: whether models and data may run code that the run's config names outside lth.
        data_root: where data lies on this machine; None is where the run had it.

    Raises:
        RequestError: there is no run. Damaged, ReadFailed, NewerFormat: it cannot be read.
    """
    return Run(StoredRun.open(Path(path)), trust, data_root)


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    stored: StoredRun
    trust: bool = False
    data_root: str | None = None

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.stored.path

    @property
    def config(self) -> dict[str, Any]:
        """The stored config, plain values."""
        return self.stored.config

    @property
    def state(self) -> str:
        """`finished`, `running`, `interrupted` or `failed`."""
        return self.stored.effective_state

    @property
    def rounds(self) -> list[Round]:
        """Its finished rounds, ascending."""
        return [Round(self, found.number) for found in self.stored.rounds() if found.finished]

    def round(self, number: int, control: str | None = None) -> Round:
        """A finished round, of the run or of one kind of its controls. Raises RequestError: there is none."""
        if control is not None and control not in self.stored.branches():
            there = ", ".join(self.stored.branches()) or "none"
            raise RequestError(f"{self.stored.name} has no controls {control!r}; it has {there}")
        finished = [found.number for found in self.stored.rounds(control) if found.finished]
        if number not in finished:
            there = ", ".join(map(str, finished)) or "none"
            raise RequestError(f"{self.stored.name} has no finished round {number}; it has {there}")
        return Round(self, number, control)

    def results(self) -> DataFrame:
        """Its results, as `lth.runs` has them."""
        from lth_cli.api.tables import runs

        return runs([self.path])

    def data(self) -> dict[str, TensorDataset]:
        """The examples by split (`train`, `test`, and `val` where there is one), as the network sees them.

        Normalised, in stored order, without augmentation, on the CPU; (inputs, labels) where data has classes.
        """
        if not self.rounds:
            raise RequestError(f"{self.stored.name} has no finished round yet")
        from torch.utils.data import TensorDataset

        from lth_cli.experiments.opened import examples_of

        found = examples_of(self.rounds[0].recorded)
        return {split: TensorDataset(*tensors.values()) for split, tensors in found.items()}

    def analysis(self, name: str, table: str | None = None) -> DataFrame:
        """A table of a finished analysis.

        Args:
            name: of the analysis (`instability`), or of its folder (`instability-0123abcd`) where there are several.
            table: which of its tables; None is its only one.

        Raises:
            RequestError: no such analysis or table, or several.
        """
        answers = {stored.path.name: stored for stored in StoredAnalysis.all_of(self.stored)}
        fitting = [key for key in answers if name in (key, key.rpartition("-")[0])]
        if len(fitting) != 1:
            what = "several answers of" if fitting else "no finished analysis"
            there = ", ".join(fitting or answers) or "none"
            raise RequestError(f"{self.stored.name} has {what} {name!r}; name one of: {there}")
        tables = answers[fitting[0]].tables()
        chosen = table or (next(iter(tables)) if len(tables) == 1 else "")
        if chosen not in tables:
            raise RequestError(f"{fitting[0]} has the tables {', '.join(tables)}; name one with table=")
        return frame(list(tables[chosen]))


@dataclass(frozen=True)
class Round:
    """A finished round of a run."""

    run: Run
    number: int
    control: str | None = None

    @cached_property
    def recorded(self) -> Recorded:
        """The round as a training; loads the data. Raises RequestError: its config is not trusted, or does not fit."""
        from lth_cli.experiments.opened import Place
        from lth_cli.experiments.recorded import open_round
        from lth_cli.experiments.trust import check_trust

        if not self.run.trust:
            check_trust(self.run.stored, "trust=True")
        place = Place(str(self.run.path.parent), DataPlace(root=self.run.data_root))
        return open_round(self.run.stored, self.number, place, branch=self.control)

    def masks(self) -> dict[str, Tensor]:
        """The mask of each pruned tensor by name, bool, True = kept; of a dense round, all kept."""
        return self.run.stored.round(self.number, self.control).masks()

    def state(self, step: Step = "end") -> State:
        """Weights, buffers and optimizer state after a step, on the CPU.

        Read where the run or the shared store beside it has it; trained where not.

        Raises:
            RequestError: the step lies outside the round's training, or can neither be read nor trained here.
        """
        from lth_cli.experiments.opened import state_at

        return state_at(self.recorded, step)

    def model(self, *, masked: bool = True, step: Step = "end") -> nn.Module:
        """The network after a step, on the CPU, in evaluation mode.

        Args:
            masked: set what the round prunes to zero; else the weights are those stored, which after a rewind are
                zero there already.
            step: a step counter, `init` or `end`.

        Raises:
            RequestError: as `state`.
        """
        from lth_cli.experiments.opened import model_of

        return model_of(self.recorded, self.state(step), masked=masked)
