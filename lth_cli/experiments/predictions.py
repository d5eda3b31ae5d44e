"""What the end of a round answers, kept with the round."""

from __future__ import annotations

from torch import Tensor

from lth_cli.store.rounds import Round
from lth_cli.training.engine import Engine, Interrupted
from lth_cli.training.evaluate import Stopped, answers
from lth_cli.training.restore import restore
from lth_cli.training.trajectory import Trajectory


def keep_predictions(round_: Round, trajectory: Trajectory, engine: Engine) -> None:
    """Write the answers of a round's end to the validation and test examples, made from its stored state.

    Raises:
        Interrupted: told to stop in the middle of it.
        LthError: the state can be neither read nor trained.
        WriteFailed.
    """
    recipe = trajectory.recipe
    recipe.execution.activate()
    model = recipe.execution.place(recipe.build(init_seed=0))
    restore(model, engine.state(trajectory, trajectory.end))
    found: dict[str, Tensor] = {}
    for split in ("val", "test"):
        if split not in recipe.data.sizes:
            continue
        try:
            outputs, _ = answers(
                model, recipe.objective, recipe.data, split, recipe.execution, engine.stop.is_set
            )
        except Stopped:
            raise Interrupted(
                "stopped while predictions are made; the same command goes on from there"
            ) from None
        found |= {f"{split}_outputs": outputs, f"{split}_positions": recipe.data.positions(split)}
    round_.save_predictions(found, trajectory.identity, trajectory.end)
