import copy

import pytest
import torch
from torch.func import functional_call
from training_helpers import DROPOUT, RESNET

from lth_cli.config.errors import LthError
from lth_cli.pruning.mask import everything
from lth_cli.pruning.scores import synflow
from lth_cli.training.loop import initial_state
from lth_cli.training.probe import TrainingProbe


@pytest.fixture
def ask(make_dense):
    """A probe of the initial weights of some overrides, its trajectory, and the weights with a mask."""

    def made(*overrides):
        trajectory = make_dense(*overrides)
        state = initial_state(trajectory, trajectory.start.seed)
        weights = {name: weight for name, weight in state.weights.items() if weight.ndim > 1}
        return TrainingProbe(trajectory, state), trajectory, state, weights

    return made


def reference(trajectory, state, dtype=torch.float64):
    """The network at a state, and its loss of a batch as a function of some weights."""
    model = trajectory.recipe.build(0).to(dtype)
    model.load_state_dict(state.weights | state.buffers)

    def loss(weights, batch):
        outputs = functional_call(model, weights, (batch["inputs"].to(dtype),))
        return torch.nn.functional.cross_entropy(outputs, batch["labels"])

    return model, loss


def slopes_of(loss, weights, batch, **options):
    leaves = {name: weight.double().requires_grad_() for name, weight in weights.items()}
    found = torch.autograd.grad(loss(leaves, batch), list(leaves.values()), **options)
    return leaves, dict(zip(leaves, found, strict=True))


def assert_close(found, expected, tolerance=1e-5):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        scale = float(tensor.abs().max())
        assert torch.allclose(found[name].double(), tensor, atol=tolerance * scale, rtol=0.0), name


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_gradients_are_those_of_the_batch_that_the_training_begins_with(ask, mode):
    probe, trajectory, state, weights = ask(*RESNET)
    weights = {name: weight * 1.5 for name, weight in weights.items()}
    model, loss = reference(trajectory, state)
    model.train(mode == "training")
    _, expected = slopes_of(loss, weights, next(trajectory.batches.starting_at(0)))
    assert_close(probe.gradients(weights, probe.batches(1), mode=mode), expected)


def test_gradients_of_all_batches_are_of_the_mean_over_the_examples(ask):
    """431 examples in batches of 60: the last of an epoch has 11."""
    probe, trajectory, state, weights = ask()
    _, loss = reference(trajectory, state)
    everyone = {
        name: torch.cat([batch[name] for batch in probe.batches("all")]) for name in ("inputs", "labels")
    }
    assert len(everyone["labels"]) == trajectory.data.sizes["train"] == 431
    _, expected = slopes_of(loss, weights, everyone)
    assert_close(probe.gradients(weights, probe.batches("all")), expected)


def test_temperature_and_another_loss(ask):
    probe, _, state, weights = ask()
    batch = next(iter(probe.batches(1)))

    def summed(outputs, _):
        return outputs.sum()

    plain = probe.gradients(weights, [batch], loss=summed)
    divided = probe.gradients(weights, [batch], loss=summed, temperature=4.0)
    for name, slope in plain.items():
        assert torch.allclose(divided[name], slope / 4)
    assert set(plain) < set(state.weights)


def test_product_is_the_hessian_times_a_vector(ask):
    """Against the gradient of gradient . vector, both in float64, of a network with batch norm."""
    probe, trajectory, state, weights = ask(*RESNET)
    model, loss = reference(trajectory, state)
    model.train()
    batch = next(iter(probe.batches(1)))
    source = torch.Generator().manual_seed(0)
    vector = {name: torch.randn(weight.shape, generator=source) for name, weight in weights.items()}
    leaves, slopes = slopes_of(loss, weights, batch, create_graph=True)
    along = sum((slope * vector[name]).sum() for name, slope in slopes.items())
    expected = dict(zip(leaves, torch.autograd.grad(along, list(leaves.values())), strict=True))
    assert_close(probe.product(weights, [batch], vector), expected, 1e-4)
    halves = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(20), slice(20, None))]
    whole = probe.product(weights, [batch], vector, mode="inference")
    assert_close(probe.product(weights, halves, vector, mode="inference"), _double(whole), 1e-4)


def _double(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def test_response_by_hand(ask):
    """R of a network of positive parameters is a sum over paths; ReLU lets all of them through."""
    probe, _, state, weights = ask("model.hidden=[5]")
    first, last = (state.weights[f"{name}.weight"].double().abs() for name in ("fc_layers.0", "fc"))
    hidden = first.sum(1) + state.weights["fc_layers.0.bias"].double().abs()
    found = synflow(weights, everything({}), seed=0, probe=probe)
    assert all(score.dtype == torch.float64 for score in found.values())
    assert_close(
        found, {"fc_layers.0.weight": first * last.sum(0)[:, None], "fc.weight": last * hidden}, 1e-14
    )
    signed = probe.response(weights, torch.sum, others=None)
    assert not torch.equal(signed["fc.weight"], found["fc.weight"])


def test_nothing_is_changed_and_calls_repeat(ask):
    probe, _, state, weights = ask(*DROPOUT)
    before, kept = copy.deepcopy((state.weights, state.buffers)), copy.deepcopy(weights)
    random = torch.get_rng_state()
    first = probe.gradients(weights, probe.batches(2))
    probe.response(weights, torch.sum, others=torch.abs)
    probe.product(weights, probe.balanced(1), first, mode="training")
    again = probe.gradients(weights, probe.batches(2))
    assert torch.equal(torch.get_rng_state(), random)
    for left, right in zip(
        (*before, kept, first), (state.weights, state.buffers, weights, again), strict=True
    ):
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert not any(weight.requires_grad for weight in weights.values())


def test_balanced_takes_the_first_of_each_class_in_the_order_of_the_first_epoch(ask):
    probe, trajectory, _, _ = ask("dataset.augment.flip=true")
    sample = list(probe.balanced(7))
    assert [len(batch["labels"]) for batch in sample] == [60, 10]
    labels = torch.cat([batch["labels"] for batch in sample])
    assert labels.bincount().tolist() == [7] * 10
    order = torch.cat([trajectory.batches.positions(step) for step in range(8)])
    stored = {
        name: torch.cat([batch[name] for batch in trajectory.data.evaluation("train", order=order)])
        for name in ("inputs", "labels")
    }
    expected: list[int] = []
    for row, label in enumerate(stored["labels"].tolist()):
        if [int(stored["labels"][one]) for one in expected].count(label) < 7:
            expected.append(row)
    assert torch.equal(torch.cat([batch["inputs"] for batch in sample]), stored["inputs"][expected])
    everyone = torch.cat([batch["labels"] for batch in probe.balanced(1000)])
    assert len(everyone) == 431


def test_without_classes_there_is_no_balanced_sample(ask):
    probe, *_ = ask("experiment=gpt_characters", "dataset.subset.fraction=1")
    assert probe.classes is None
    with pytest.raises(LthError, match="of classes"):
        probe.balanced(1)


@pytest.mark.parametrize("asked", ["gradients", "product", "response"])
def test_what_is_not_finite_is_named(ask, asked):
    probe, _, _, weights = ask()
    weights = {name: weight * 1e30 for name, weight in weights.items()}
    first = next(iter(weights))
    calls = {
        "gradients": lambda: probe.gradients(weights, probe.batches(1)),
        "product": lambda: probe.product(weights, probe.batches(1), weights),
        "response": lambda: probe.response(weights, lambda outputs: outputs.sum() * float("inf")),
    }
    with pytest.raises(LthError, match=f"not finite: that of {first}, at the weights of step 0"):
        calls[asked]()
