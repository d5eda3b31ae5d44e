"""The grammar of states: `RUN:ROUND@STEP`, wherever a person names a state of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lth_cli.config.steps import Duration

_REFERENCE = re.compile(
    r"(?P<run>[^:@].*?)(:(?:(?P<branch>[A-Za-z_]+)/)?(?P<round>\d{1,5}|last|best))?(?:@(?P<step>[^@:/]*))?",
    re.ASCII | re.DOTALL,
)
_ROUND = re.compile(r"(?:[A-Za-z_]+/)?(?:\d{1,5}|last|best)(?:@[^@:/]*)?", re.ASCII)


def is_round(text: str) -> bool:
    """Whether this names a round alone, `3`, `random/3@end`, `last`; the run is then known from elsewhere."""
    return _ROUND.fullmatch(text.strip()) is not None


@dataclass(frozen=True)
class Reference:
    """A state of a run, as a person names it.

    Attributes:
        run: name or path of the run.
        branch: kind of control; None is the run itself.
        round: its number; `last` is the last finished one, `best` the one that is best on the validation examples
            (test examples where nothing is held out) by the run's headline metric; of equals the earlier.
        step: `start` and `end` of the round's training, or a step of it.
    """

    run: str
    branch: str | None = None
    round: int | str = "last"
    step: Duration | str = "end"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `RUN`, `RUN:3`, `RUN:last@500it`, `RUN:random/3@start`, `RUN@2ep`.

        Raises:
            ValueError: naming what is accepted.
        """
        found = _REFERENCE.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                f"{text!r} names no state; write RUN:ROUND@STEP, for example imp:3@500it or imp:last"
            )
        step = found["step"]
        if step is not None and step not in ("start", "end"):
            try:
                step = Duration.parse(step)
            except ValueError as error:
                raise ValueError(f"{text!r}: {error}; or start, end") from None
        number = found["round"] or "last"
        return cls(
            found["run"],
            found["branch"],
            int(number) if number.isdigit() else number,
            "end" if step is None else step,
        )

    def __str__(self) -> str:
        branch = f"{self.branch}/" if self.branch else ""
        return f"{self.run}:{branch}{self.round}@{self.step}"
