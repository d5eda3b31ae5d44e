"""Losses and metrics against values worked out by hand; data that do not fit are refused."""

import math

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Objective as Section
from lth_cli.config.spec import Interface, Spec
from lth_cli.models.concept_bottleneck import ConceptBottleneck
from lth_cli.objectives.build import make_objective
from lth_cli.objectives.classification import Classification
from lth_cli.objectives.concepts import Concepts
from lth_cli.objectives.language import NextToken
from lth_cli.objectives.regression import Regression

IMAGES = Spec.classified((1, 4, 4), 3)
COLOURS = Spec({"inputs": (2,), "targets": (3,)}, {"inputs": "float32", "targets": "float32"})
TEXTS = Spec({"tokens": (5,)}, {"tokens": "int64"}, {"vocabulary": 7})


def totals(objective, outputs, batch):
    sums = {name: float(value) for name, value in objective.measure(outputs, batch).items()}
    return objective.summarize({**sums, "examples": float(len(outputs))})


def test_classification():
    """Two classes: softmax of (0, ln 3) is (1/4, 3/4)."""
    outputs = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    batch = {"inputs": torch.zeros(2, 1), "labels": torch.tensor([1, 0])}
    expected = (-math.log(3 / 4) - math.log(1 / 4)) / 2
    assert float(Classification().loss(outputs, batch)) == pytest.approx(expected)
    found = totals(Classification(label_smoothing=0.5), outputs, batch)
    assert found == {"loss": pytest.approx(expected), "accuracy": 0.5}
    assert Classification().error(found) == 0.5
    # Half of each target is spread: a quarter on the wrong class.
    right, wrong = -math.log(3 / 4), -math.log(1 / 4)
    smoothed = (0.75 * right + 0.25 * wrong + 0.75 * wrong + 0.25 * right) / 2
    assert float(Classification(label_smoothing=0.5).loss(outputs, batch)) == pytest.approx(smoothed)


def test_regression():
    outputs, targets = torch.tensor([[0.0, 0.2], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    batch = {"inputs": torch.zeros(2, 2), "targets": targets}
    assert float(Regression().loss(outputs, batch)) == pytest.approx(0.04 / 4)
    assert totals(Regression(), outputs, batch) == {"loss": pytest.approx(0.01), "psnr": pytest.approx(20.0)}
    assert totals(Regression(peak=10.0), outputs, batch)["psnr"] == pytest.approx(40.0)
    assert math.isfinite(totals(Regression(), targets, batch)["psnr"])
    assert Regression().error({"loss": 0.1}) is None


def test_next_token():
    """Uniform over seven tokens: perplexity 7."""
    tokens = torch.tensor([[0, 1, 2, 3, 4], [6, 5, 4, 3, 2]])
    objective, batch = NextToken(), {"tokens": tokens}
    assert torch.equal(objective.given(batch), tokens[:, :-1])
    outputs = torch.zeros(2, 4, 7)
    assert float(objective.loss(outputs, batch)) == pytest.approx(math.log(7))
    assert totals(objective, outputs, batch) == {
        "loss": pytest.approx(math.log(7)),
        "perplexity": pytest.approx(7.0),
    }
    sure = 100.0 * torch.nn.functional.one_hot(tokens[:, 1:], 7).float()
    assert totals(objective, sure, batch)["perplexity"] == pytest.approx(1.0)
    assert math.isfinite(objective.summarize({"loss": 1e6, "examples": 1.0})["perplexity"])


@pytest.mark.parametrize(
    ("objective", "spec", "expected"),
    [
        (Classification(), IMAGES, Interface.classifier((1, 4, 4), 3)),
        (Regression(), COLOURS, Interface((2,), "float32", (3,), {"outputs": 3})),
        (NextToken(), TEXTS, Interface((4,), "int64", (4, 7), {"vocabulary": 7, "length": 4})),
    ],
)
def test_models_are_built_for_what_goes_in_and_out(objective, spec, expected):
    assert objective.interface(spec) == expected
    for other in [other for other in (IMAGES, COLOURS, TEXTS) if other is not spec]:
        with pytest.raises(ConfigError, match="of the data; this data set has"):
            objective.interface(other)


def doubled(outputs, batch, *, times: float = 2.0):
    """A person's own loss."""
    return times * outputs.sum() / len(batch["inputs"])


def test_an_own_loss_takes_the_place_of_the_task():
    section = Section.model_validate({"loss": {"_target_": "test_objectives.doubled", "times": 3.0}})
    objective = make_objective(section, 0.0)
    batch = {"inputs": torch.zeros(2, 1), "labels": torch.tensor([0, 1])}
    assert float(objective.loss(torch.ones(2, 2), batch)) == pytest.approx(6.0)
    assert objective.measure(torch.ones(2, 2), batch)["loss"] == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize(
    ("section", "smoothing", "message"),
    [
        ({"_target_": "torch.nn.Linear"}, 0.0, "objective._target_: .*is not a"),
        ({"_target_": "lth_cli.objectives.regression.Regression", "peak": -1.0}, 0.0, "objective.peak"),
        ({"_target_": "lth_cli.objectives.regression.Regression"}, 0.1, "has no labels to smooth"),
        ({"loss": {"_target_": "test_objectives.doubled", "time": 1}}, 0.0, "objective.loss.time"),
        ({"lossy": 1}, 0.0, "objective.lossy: unknown key"),
    ],
)
def test_wrong_objectives(section, smoothing, message):
    with pytest.raises(ConfigError, match=message):
        make_objective(Section.model_validate(section), smoothing)


def test_only_what_is_not_classification_as_it_comes_is_part_of_the_identity():
    assert load("prune", []).config.objective.unusual == {}
    assert load("prune", ["objective=regression"]).config.objective.unusual == {
        "_target_": "lth_cli.objectives.regression.Regression",
        "peak": 1.0,
    }


def test_concepts():
    """One concept of logit 0 (ln 2 each way), weighted 3; classes as in test_classification."""
    outputs = torch.tensor([[0.0, 0.0, math.log(3)], [0.0, 0.0, math.log(3)]])
    batch = {
        "inputs": torch.zeros(2, 1),
        "concepts": torch.tensor([[1.0], [0.0]]),
        "concept_weights": torch.full((2, 1), 3.0),
        "labels": torch.tensor([1, 0]),
    }
    by_class, by_concept = (-math.log(3 / 4) - math.log(1 / 4)) / 2, 3 * math.log(2)
    assert float(Concepts().loss(outputs, batch)) == pytest.approx(by_class + by_concept)
    joint = Concepts(concept_weight=2.0, normalize=True)
    assert float(joint.loss(outputs, batch)) == pytest.approx((by_class + 2 * by_concept) / 3)
    found = totals(Concepts(), outputs, batch)
    assert found == {
        "loss": pytest.approx(by_class + by_concept),
        "accuracy": 0.5,
        "concept_accuracy": 0.5,
    }
    images = {**batch, "inputs": torch.tensor([[0], [255]], dtype=torch.uint8)}
    assert Concepts().given(images).tolist() == [[-0.25], [0.25]]
    assert "told" in Concepts().view(batch, 0, 0) and "told" not in Concepts().view(batch, None, 0)


@pytest.mark.parametrize(
    ("link", "reaches"),
    [("independent", False), ("sequential", False), ("joint", True), ("joint_probabilities", True)],
)
def test_whether_the_class_teaches_the_concepts(link, reaches):
    model = ConceptBottleneck(input_shape=(4,), classes=3, concepts=2, hidden=[5], link=link)
    x, told = torch.ones(2, 4), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    outputs = model(x, told)
    outputs[:, 2:].sum().backward()
    gradients = [weight.grad for weight in model.encoder.parameters()]
    assert any(slope is not None and slope.any() for slope in gradients) == reaches
    expected = model.head(told if link == "independent" else model(x)[:, :2])
    if link != "joint_probabilities":
        assert torch.allclose(outputs[:, 2:], expected)
    # Untold, it goes by what it thinks itself.
    thinks = outputs[:, :2].sigmoid() if model.of_probabilities else outputs[:, :2]
    assert torch.allclose(model(x)[:, 2:], model.head(thinks))
