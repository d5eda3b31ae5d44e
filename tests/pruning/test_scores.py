import pytest
import torch

from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Pruning
from lth_cli.pruning import scores
from lth_cli.pruning.mask import ones

WEIGHTS = {"a": torch.tensor([[-3.0, 0.5]]), "b": torch.tensor([-0.0, 2.0, -1.0])}


def inverted(weights, masks, *, seed):
    return {name: -weight.abs() for name, weight in weights.items()}


def without_seed(weights, masks):
    return weights


def scaled(w, m, *, seed, by: float, probe=None):
    return {name: by * weight.abs() for name, weight in w.items()}


class Quadratic:
    """The loss w A_b w / 2 - c_b w of batch b, of one tensor in float64; batches are numbers of examples."""

    classes = 3

    def __init__(self, *batches):
        source = torch.Generator().manual_seed(0)
        self.sizes = batches
        self.matrices = [torch.randn(4, 4, generator=source, dtype=torch.float64) for _ in batches]
        self.matrices = [matrix + matrix.T for matrix in self.matrices]
        self.linear = [torch.randn(4, generator=source, dtype=torch.float64) for _ in batches]
        self.asked = []

    def batches(self, count):
        return range(len(self.sizes) if count == "all" else count)

    def balanced(self, each):
        return range(len(self.sizes))

    def gradients(self, weights, batches, *, loss=None, temperature=1.0, mode="training"):
        self.asked.append((loss, temperature, mode))
        slopes = [self.matrices[one] @ weights["a"] - self.linear[one] for one in batches]
        return {"a": self._mean(slopes, batches)}

    def product(self, weights, batches, vector, *, temperature=1.0, mode="training"):
        self.asked.append((None, temperature, mode))
        return {"a": self._mean([self.matrices[one] @ vector["a"] for one in batches], batches)}

    def _mean(self, found, batches):
        shares = [self.sizes[one] for one in batches]
        return sum(share * tensor for share, tensor in zip(shares, found, strict=True)) / sum(shares)


POINT = {"a": torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)}


def asked(name, probe, masks=None, **arguments):
    config = Pruning(rounds=1, score=name, arguments=arguments)
    return scores.make_score(config, probe)(POINT, masks or ones(POINT), seed=0)["a"]


def test_sensitivity_of_one_batch_and_of_all():
    probe = Quadratic(6, 6, 3)
    first, second, third = (
        matrix @ POINT["a"] - linear for matrix, linear in zip(probe.matrices, probe.linear, strict=True)
    )
    assert torch.allclose(asked("snip", probe), (POINT["a"] * first).abs())
    assert torch.allclose(asked("saliency", probe), (POINT["a"] * first).abs())
    mean = (6 * first + 6 * second + 3 * third) / 15
    assert torch.allclose(asked("snip", probe, batches="all"), (POINT["a"] * mean).abs())
    apart = sum((POINT["a"] * slope).abs() for slope in (first, second, third))
    assert torch.allclose(asked("gradient_times_weight", probe), apart)
    two = (POINT["a"] * first) ** 2 + (POINT["a"] * second) ** 2
    assert torch.allclose(asked("fisher", probe, batches=2), two)


def test_grasp_is_half_of_what_the_norm_of_the_gradient_loses():
    """By differences: weights shrink towards zero one by one, and the squared norm over those that remain falls."""
    probe, masks = Quadratic(2, 5), {"a": torch.tensor([True, True, False, True])}
    found = asked("grasp", probe, masks)
    assert {options[1:] for options in probe.asked} == {(200.0, "training")}

    def norm(weight):
        slope = probe.gradients({"a": weight}, range(2))["a"] * masks["a"]
        return (slope * slope).sum()

    for place in (0, 1, 3):
        step = torch.zeros(4, dtype=torch.float64)
        step[place] = 1e-6 * POINT["a"][place]
        loss = (norm(POINT["a"] + step) - norm(POINT["a"] - step)) / 2e-6
        assert found[place] == pytest.approx(loss.item() / 2, rel=1e-6)


def test_labels_of_the_network_itself():
    logits = torch.tensor([[0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    log = torch.log_softmax(logits, 1)
    expected = {
        "predictions": (-log[0, 1] - 2 * log[1, 0] - 2 * log[1, 1]) / 2,
        "softmax": -(log.exp() * log).sum() / 2,
        "uniform": -log.mean(),
    }
    for labels, value in expected.items():
        probe = Quadratic(1)
        asked("snip", probe, labels=labels, mode="inference")
        [(loss, _, mode)] = probe.asked
        assert (loss(logits, {}).item(), mode) == (pytest.approx(value.item()), "inference")
    probe = Quadratic(1)
    asked("snip", probe)
    assert probe.asked[0][0] is None


def test_softmax_labels_are_differentiated():
    """Held fixed, the gradient would be the softmax less itself: zero."""
    probe = Quadratic(1)
    asked("snip", probe, labels="softmax")
    logits = torch.tensor([[0.0, 1.0, -2.0]], requires_grad=True)
    [slope] = torch.autograd.grad(probe.asked[0][0](logits, {}), logits)
    assert float(slope.abs().min()) > 0.01


@pytest.mark.parametrize(
    ("score", "arguments", "complaint"),
    [
        ("magnitude", {"batches": 1}, "pruning.arguments.batches: unknown key; accepted: none"),
        ("snip", {"batch": 1}, "pruning.arguments.batch: unknown key; did you mean 'batches'?"),
        ("snip", {"batches": 0}, "pruning.arguments.batches"),
        ("snip", {"labels": "none"}, "pruning.arguments.labels"),
        ("snip", {"probe": 1}, "pruning.arguments.probe: unknown key"),
        ("grasp", {"temperature": 0.0}, "pruning.arguments.temperature"),
        (f"{__name__}.scaled", {}, "pruning.arguments.by: is required"),
    ],
)
def test_arguments_are_checked_against_the_signature(score, arguments, complaint):
    with pytest.raises(ConfigError) as refused:
        scores.check_score(Pruning(rounds=1, score=score, arguments=arguments), 10)
    assert complaint in str(refused.value)


def test_a_score_of_ones_own_gets_its_arguments():
    config = Pruning(rounds=1, score=f"{__name__}.scaled", arguments={"by": 2})
    scores.check_score(config, None)
    assert scores.make_score(config, None)(WEIGHTS, ones(WEIGHTS), seed=0)["a"].tolist() == [[6.0, 1.0]]


def test_scores_of_classes_are_refused_without():
    for config in (
        Pruning(rounds=1, score="grasp"),
        Pruning(rounds=1, score="snip", arguments={"labels": "uniform"}),
    ):
        scores.check_score(config, 2)
        with pytest.raises(ConfigError, match=r"pruning\.score: .* of classes"):
            scores.check_score(config, None)
    scores.check_score(Pruning(rounds=1, score="snip"), None)


def test_magnitude_is_the_absolute_value():
    found = scores.magnitude(WEIGHTS, ones(WEIGHTS), seed=0)
    assert {name: score.tolist() for name, score in found.items()} == {
        "a": [[3.0, 0.5]],
        "b": [0.0, 2.0, 1.0],
    }


def test_random_scores_have_no_ties_and_follow_the_seed():
    weights = {"a": torch.zeros(20, 10), "b": torch.zeros(300)}
    masks = ones(weights)
    first = scores.random(weights, masks, seed=1)
    assert {name: score.shape for name, score in first.items()} == {"a": (20, 10), "b": (300,)}
    assert torch.cat([score.flatten() for score in first.values()]).unique().numel() == 500
    assert torch.equal(first["b"], scores.random(weights, masks, seed=1)["b"])
    assert not torch.equal(first["b"], scores.random(weights, masks, seed=2)["b"])


def test_scores_are_found_by_short_name_and_import_path():
    assert scores.locate_score("magnitude") is scores.magnitude
    assert scores.locate_score("random") is scores.random
    assert scores.locate_score("lth_cli.pruning.scores.random") is scores.random
    assert scores.locate_score(f"{__name__}.inverted") is inverted


@pytest.mark.parametrize("name", ["magnitud", "locate_score", "total", "Score", "", "_is_score"])
def test_unknown_score_lists_what_is_accepted(name):
    with pytest.raises(
        ConfigError,
        match=r"pruning\.score: no score .*accepted: magnitude, random, .*synflow, or an import path",
    ):
        scores.locate_score(name)


@pytest.mark.parametrize("name", [f"{__name__}.without_seed", "torch.abs", "math.floor"])
def test_what_is_no_score_is_refused(name):
    with pytest.raises(ConfigError, match=r"pruning\.score: .* must take \(weights, masks, \*, seed\)"):
        scores.locate_score(name)


def test_missing_module_is_named():
    with pytest.raises(ConfigError, match=r"pruning\.score: cannot import 'no_such_lab'"):
        scores.locate_score("no_such_lab.snip")
