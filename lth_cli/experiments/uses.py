"""What a run or an analysis at work relies on, noted for `lth gc`."""

from __future__ import annotations

from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run


class Uses:
    """Notes which trajectories a run or an analysis works with, so that `lth gc` leaves them until it is finished."""

    def __init__(self, noted_in: Run | StoredAnalysis) -> None:
        self._noted_in = noted_in
        self._noted = set(noted_in.uses())

    def __call__(self, identity: str) -> None:
        """Note a trajectory, before any of its states is looked for."""
        if identity not in self._noted:
            self._noted.add(identity)
            self._noted_in.write_uses(sorted(self._noted))
