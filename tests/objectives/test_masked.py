"""Masking: rates by hand, what is drawn, and sums against scikit-learn and scipy."""

import math

import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, matthews_corrcoef

from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Spec
from lth_cli.config.steps import Duration
from lth_cli.objectives.masked import MaskedTokens, SubstitutedTokens, masking_rate
from lth_cli.objectives.text import TextClassification, TextRegression
from lth_cli.objectives.text_metrics import f1, matthews, spearman

SIZES = {"vocabulary": 1000, "length": 64, "padding": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4}
TEXTS = Spec({"tokens": (64,)}, {"tokens": "int64"}, SIZES)


def settled(objective):
    return objective.settled(TEXTS, steps_per_epoch=10, horizon=100)


@pytest.fixture(scope="module")
def batch():
    tokens = torch.randint(5, 1000, (200, 64), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -9], tokens[:, -8:] = 2, 3, 0
    return {"tokens": tokens}


def test_rates_of_the_paper():
    """p_i = 0.3, p_f = 0.1: the formulas at a quarter, half and the end."""
    found = {
        name: [round(masking_rate(name, 0.3, 0.1, done), 6) for done in (0.0, 0.25, 0.5, 1.0)]
        for name in ("constant", "linear", "cosine", "step")
    }
    quarter = round(0.3 - 0.1 * (1 - math.sqrt(0.5)), 6)
    assert found == {
        "constant": [0.3, 0.3, 0.3, 0.3],
        "linear": [0.3, 0.25, 0.2, 0.1],
        "cosine": [0.3, quarter, 0.2, 0.1],
        "step": [0.3, 0.3, 0.1, 0.1],
    }
    objective = settled(MaskedTokens(rate=0.3, final=0.1, schedule="linear"))
    assert objective.rate(50) == pytest.approx(0.2)
    assert objective.rate(None) == 0.15
    assert objective.decided == {"masking_steps": 100}
    shorter = settled(MaskedTokens(rate=0.3, final=0.1, schedule="linear", over=Duration(epochs=2)))
    assert (shorter.decided, shorter.rate(70)) == ({"masking_steps": 20}, pytest.approx(0.1))
    assert settled(MaskedTokens()).decided == {}


def test_shares_of_what_is_masked(batch):
    """11,000 usual tokens: 30 % chosen, of them 80 % masked, 10 % replaced, 10 % kept."""
    tokens = batch["tokens"]
    seen = settled(MaskedTokens(rate=0.3)).view(batch, 5, 1)
    chosen = seen["targets"] != -100
    assert torch.equal(seen["targets"][chosen], tokens[chosen])
    assert not chosen[tokens < 5].any()
    assert torch.equal(seen["tokens"][~chosen], tokens[~chosen])
    count, usual = int(chosen.sum()), int((tokens >= 5).sum())
    assert count / usual == pytest.approx(0.3, abs=0.02)
    masked = (seen["tokens"] == 4) & chosen
    assert int(masked.sum()) / count == pytest.approx(0.8, abs=0.03)
    assert int((seen["tokens"] == tokens)[chosen].sum()) / count == pytest.approx(0.1, abs=0.03)
    replaced = seen["tokens"][chosen & ~masked & (seen["tokens"] != tokens)]
    assert replaced.float().mean() == pytest.approx(500, abs=60)


def test_what_is_drawn_depends_on_seed_step_and_text_alone(batch):
    objective = settled(MaskedTokens())
    whole = objective.view(batch, 5, 1)["tokens"]
    part = objective.view({"tokens": batch["tokens"][50:70].flip(0)}, 5, 1)["tokens"]
    assert torch.equal(part.flip(0), whole[50:70])
    assert not torch.equal(objective.view(batch, 6, 1)["tokens"], whole)
    assert not torch.equal(objective.view(batch, 5, 2)["tokens"], whole)
    evaluated = [objective.view(batch, None, seed)["tokens"] for seed in (0, 1)]
    assert torch.equal(*evaluated)
    assert objective.draws
    assert not TextClassification().draws


def test_masked_loss_and_accuracy(batch):
    objective = settled(MaskedTokens())
    seen = objective.view(batch, None, 0)
    outputs = torch.zeros(200, 64, 1000)
    assert float(objective.loss(outputs, seen)) == pytest.approx(math.log(1000), rel=1e-5)
    sums = {name: float(value) for name, value in objective.measure(outputs, seen).items()}
    found = objective.summarize({**sums, "examples": 200.0})
    assert found["loss"] == pytest.approx(math.log(1000), rel=1e-5)
    nothing = {**seen, "targets": torch.full_like(seen["targets"], -100)}
    assert float(objective.loss(outputs, nothing)) == 0.0


def test_substituted_tokens(batch):
    objective = settled(SubstitutedTokens(rate=0.2))
    seen = objective.view(batch, 1, 0)
    assert torch.equal(seen["targets"] == 1, seen["tokens"] != batch["tokens"])
    assert torch.equal(seen["targets"] == -100, batch["tokens"] == 0)
    sure = torch.nn.functional.one_hot(seen["targets"].clamp(min=0), 2) * 50.0
    sums = {name: float(value) for name, value in objective.measure(sure, seen).items()}
    assert objective.summarize({**sums, "examples": 200.0})["accuracy"] == 1.0


def test_metrics_of_tasks_are_those_of_the_libraries():
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(50, 2, generator=generator)
    batch = {"labels": torch.randint(0, 2, (50,), generator=generator)}
    said, numbers = outputs.argmax(1), {"targets": torch.rand(50, generator=generator)}
    expected = {"f1": f1_score(batch["labels"], said), "matthews": matthews_corrcoef(batch["labels"], said)}
    for name, value in expected.items():
        objective = TextClassification(metric=name)
        sums = {key: float(total) for key, total in objective.measure(outputs, batch).items()}
        assert objective.summarize({**sums, "examples": 50.0})[name] == pytest.approx(value)
        assert objective.metrics[0].name == name
    assert (f1(outputs, batch), matthews(outputs, batch)) == tuple(map(pytest.approx, expected.values()))
    one = outputs[:, :1]
    sums = {key: float(total) for key, total in TextRegression().measure(one, numbers).items()}
    found = TextRegression().summarize({**sums, "examples": 50.0})
    assert found["pearson"] == pytest.approx(float(pearsonr(one[:, 0], numbers["targets"])[0]))
    ranked = {"targets": numbers["targets"].sort().values}
    assert spearman(ranked["targets"].exp()[:, None], ranked) == pytest.approx(1.0)


def test_settings_that_contradict_each_other():
    with pytest.raises(ConfigError, match="takes no final rate"):
        MaskedTokens(final=0.1)
    with pytest.raises(ConfigError, match="above 1"):
        MaskedTokens(mask_share=0.8, random_share=0.3)
    with pytest.raises(ConfigError, match="needs tokens"):
        MaskedTokens().settled(Spec.classified((1, 4, 4), 3), steps_per_epoch=1, horizon=1)
