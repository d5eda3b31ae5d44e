"""Chosen tokens are a mean over the whole batch in two processes too, whose parts have different numbers of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lth_cli.config.compose import load
from lth_cli.data.batches import Part
from lth_cli.data.source import Fields, Place
from lth_cli.experiments.plan import make_plan
from lth_cli.store.states import load_state

sys.path.insert(0, str(Path(__file__).parent))  # configs name functions of this module as a _target_

LTH = (sys.executable, "-c", "from lth_cli.cli.main import main; main()")
SIZES = {"vocabulary": 12, "length": 6, "padding": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4}
TRAIN = (
    *("device=cpu", "threads=1", "dataset._target_=test_tokens_in_parts.texts", "dataset.normalize=null"),
    *("model._target_=test_tokens_in_parts.Words", "~model.hidden", "model.prune_output=true"),
    *("optimizer=sgd", "optimizer.lr=0.5", "optimizer.momentum=0", "training.batch_size=4"),
    *("training.length=3it", "evaluation.train=false", "evaluation.every=3it"),
)


def texts(place: Place) -> Fields:
    """8 texts, every other one of which is mostly padding."""
    tokens = torch.randint(5, 12, (8, 6), generator=torch.Generator().manual_seed(0))
    tokens[::2, 2:] = 0
    return Fields({"tokens": tokens}, {"tokens": tokens[:2]}, SIZES)


class Words(nn.Module):
    """A linear layer of what a token is, to as many outputs as asked for."""

    def __init__(self, *, vocabulary: int, token_classes: int | None = None) -> None:
        super().__init__()
        self.rows = nn.Embedding(vocabulary, 5)
        self.out = nn.Linear(5, token_classes or vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.rows(tokens))


@pytest.mark.parametrize("name", ["masked_tokens", "substituted_tokens"])
def test_two_processes_weigh_their_parts_by_what_is_counted(lth_in, tmp_path, name):
    asked = (*TRAIN, f"objective={name}", "objective.rate=0.4")
    dense = make_plan(load("train", asked).config).dense
    objective, seed = dense.recipe.objective, dense.recipe.seeds["augment"]

    def counts(rank: int) -> list[int]:
        batches = dense.batches.starting_at(0, Part(rank, 2))
        views = [objective.view(next(batches), step, seed) for step in range(3)]
        return [int((view["targets"] != -100).sum()) for view in views]

    assert counts(0) != counts(1)  # or a mean of means would pass
    assert lth_in(tmp_path, "train", "-q", *asked, "name=one").code == 0
    done = subprocess.run(
        [*LTH, "train", "-q", *asked, "name=two", "distributed.processes=2"],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LTH_RUNS_DIR": str(tmp_path / "runs"),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = Path("round_00/checkpoints/step_00000003.safetensors")
    left, right = (tmp_path / "runs" / run / last for run in ("one", "two"))
    weights = load_state(right).weights
    for tensor, value in load_state(left).weights.items():
        assert torch.allclose(value, weights[tensor], rtol=1e-5, atol=1e-7), tensor
