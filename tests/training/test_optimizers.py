import inspect

import pytest
import torch
from torch import nn
from training_helpers import RESNET, run

from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Optimizer
from lth_cli.store.states import State, load_state, save_state
from lth_cli.training import optimizers
from lth_cli.training.decoupled_sgd import DecoupledSGD
from lth_cli.training.loop import Trainer, initial_state

REFUSED = {"LBFGS", "SparseAdam", "Muon"}
CLASSES = sorted(
    name
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found)
    and issubclass(found, torch.optim.Optimizer)
    and found is not torch.optim.Optimizer
)


def config(name, **arguments):
    return Optimizer.model_validate({"_target_": f"torch.optim.{name}", "lr": 0.01, **arguments})


def model():
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def same(one: State, other: State) -> bool:
    def equal(a, b):
        return a.keys() == b.keys() and all(
            equal(a[k], b[k]) if isinstance(a[k], dict) else torch.equal(a[k], b[k]) for k in a
        )

    return one.step == other.step and all(
        equal(getattr(one, part), getattr(other, part)) for part in ("weights", "buffers", "optimizer")
    )


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in REFUSED])
@pytest.mark.parametrize("masked", [False, True])
def test_every_class_continues_bit_for_bit_from_a_stored_state(
    name, masked, make_dense, make_ticket, tmp_path
):
    overrides = ("optimizer=sgd", f"optimizer._target_=torch.optim.{name}", "optimizer.lr=0.01")
    overrides += (
        () if name == "SGD" else ("~optimizer.momentum", "~optimizer.nesterov", "~optimizer.weight_decay")
    )
    trajectory = make_ticket(*overrides) if masked else make_dense(*overrides)
    straight = Trainer(trajectory, initial_state(trajectory, 0))
    run(straight, 5)
    save_state(tmp_path / "state", straight.state(), "f" * 64)
    run(straight, 12)
    resumed = Trainer(trajectory, load_state(tmp_path / "state"))
    run(resumed, 12)
    assert same(resumed.state(), straight.state())
    assert not same(resumed.state(), load_state(tmp_path / "state"))
    for key, mask in trajectory.masks.items():
        assert not straight.state().weights[key][~mask].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_stored_momentum_takes_the_layout_of_its_parameter(optimizer, make_dense, tmp_path):
    """Fused kernels walk memory: momentum in another layout than its weight would meet the wrong elements."""
    trajectory = make_dense(*RESNET, f"optimizer={optimizer}")
    straight = Trainer(trajectory, initial_state(trajectory, 0))
    run(straight, 3)
    save_state(tmp_path / "state", straight.state(), "f" * 64)
    resumed = Trainer(trajectory, load_state(tmp_path / "state"))
    lasts = 0
    for parameter in resumed.model.parameters():
        lasts += not parameter.is_contiguous()
        for value in resumed.optimizer.state[parameter].values():
            assert value is None or value.ndim == 0 or value.stride() == parameter.stride()
    assert lasts > 4
    run(straight, 9)
    run(resumed, 9)
    assert same(resumed.state(), straight.state())


def test_decoupled_decay_follows_the_schedule_and_not_the_rate():
    """Two steps of one weight, 2.0, with the gradient 1, at the rates 0.1 and 0.05 of a schedule from 0.1."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    unused = nn.Parameter(torch.ones(1))
    optimizer = DecoupledSGD([weight, unused], lr=0.1, momentum=0.9, weight_decay=0.01)
    for rate in (0.1, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    first = 2.0 * (1 - 0.01) - 0.1 * 1
    assert weight.item() == pytest.approx(first * (1 - 0.005) - 0.05 * (0.9 + 1), abs=1e-12)
    assert unused.item() == 1.0
    with pytest.raises(ValueError, match="weight_decay"):
        DecoupledSGD([weight], weight_decay=1.0)


def test_decoupled_decay_goes_on_from_a_stored_state(make_dense, tmp_path):
    trajectory = make_dense("optimizer=decoupled_sgd", "optimizer.weight_decay=0.01", "schedule=cosine")
    straight = Trainer(trajectory, initial_state(trajectory, 0))
    assert straight.optimizer.param_groups[0]["fused"]
    run(straight, 5)
    save_state(tmp_path / "state", straight.state(), "f" * 64)
    run(straight, 12)
    resumed = Trainer(trajectory, load_state(tmp_path / "state"))
    run(resumed, 12)
    assert same(resumed.state(), straight.state())


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
        {"momentum": 0.9, "dampening": 0.1},
        {"maximize": True},
        {"fused": False},
        {"foreach": True, "momentum": 0.5},
    ],
)
def test_settings_of_sgd(arguments):
    built = optimizers.build(config("SGD", **arguments), model())
    for key, value in arguments.items():
        assert built.param_groups[0][key] == value
    # Fused is the default wherever the person has not chosen an implementation.
    assert bool(built.param_groups[0]["fused"]) == (not {"foreach", "fused"} & arguments.keys())


def test_lists_become_tuples():
    assert optimizers.build(config("Adam", betas=[0.8, 0.9]), model()).param_groups[0]["betas"] == (0.8, 0.9)


def test_state_is_keyed_by_parameter_name_and_copied():
    net = model()
    optimizer = optimizers.build(config("Adam"), net)
    assert optimizers.export_state(optimizer, net) == {}
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = optimizers.export_state(optimizer, net)
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert set(state["0.weight"]) == {"step", "exp_avg", "exp_avg_sq"}
    before = state["0.weight"]["exp_avg"].clone()
    other = optimizers.build(config("Adam"), net)
    optimizers.import_state(other, net, state)
    other.step()
    assert torch.equal(state["0.weight"]["exp_avg"], before), (
        "a stored state must not change as training goes on"
    )
    fresh = optimizers.build(config("Adam"), net)
    optimizers.import_state(fresh, net, {})
    assert optimizers.export_state(fresh, net) == {}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("LBFGS", {}, "optimizer._target_: LBFGS evaluates the loss several times a step"),
        ("SparseAdam", {}, "optimizer._target_: SparseAdam"),
        ("Muon", {}, "optimizer: Muon only supports 2D"),
        ("Optimizer", {}, "optimizer"),
        ("SGDD", {}, "optimizer._target_: 'torch.optim' has no 'SGDD'; close to it: SGD"),
        ("lr_scheduler.StepLR", {}, "is not a torch.optim.Optimizer"),
        ("SGD", {"momentun": 0.9}, "optimizer.momentun: unknown key; did you mean 'momentum'?"),
        ("SGD", {"momentum": "much"}, "optimizer.momentum: "),
        ("SGD", {"momentum": -0.9}, "optimizer: Invalid momentum value: -0.9"),
        ("SGD", {"nesterov": True}, "optimizer: Nesterov momentum requires"),
        ("Adam", {"betas": [0.9]}, "optimizer.betas"),
        ("Adam", {"betas": [0.9, 1.5]}, "optimizer: Invalid beta parameter at index 1: 1.5"),
        ("Adam", {"params": []}, "optimizer.params: unknown key"),
        ("Adam", {"eps": -1.0}, "optimizer: Invalid epsilon value"),
    ],
)
def test_wrong_settings(name, arguments, message):
    with pytest.raises(ConfigError) as caught:
        optimizers.build(config(name, **arguments), model())
    assert message in str(caught.value)


def test_an_optimizer_of_ones_own_that_keeps_no_tensors_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "own_optimizers.py").write_text(
        "import torch\n"
        "class Counting(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr: float):\n"
        "        super().__init__(params, {'lr': lr})\n"
        "    def step(self):\n"
        "        for parameter in self.param_groups[0]['params']:\n"
        "            self.state[parameter]['count'] = self.state[parameter].get('count', 0) + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = model()
    own = Optimizer.model_validate({"_target_": "own_optimizers.Counting", "lr": 0.1})
    optimizer = optimizers.build(own, net)
    optimizer.step()
    with pytest.raises(
        ConfigError, match=r"optimizer\._target_: Counting keeps 'count' as int, not a tensor"
    ):
        optimizers.export_state(optimizer, net)


def test_a_kept_state_has_nothing_of_pruned_weights():
    state = {
        "a": {"exp_avg": torch.tensor([1.0, -2.0, float("nan")]), "step": torch.tensor(3.0)},
        "b": {"exp_avg": torch.tensor([4.0])},
    }
    kept = optimizers.masked(state, {"a": torch.tensor([False, True, False]), "c": torch.tensor([True])})
    assert kept["a"]["exp_avg"].tolist() == [0.0, -2.0, 0.0]
    assert kept["a"]["step"].item() == 3.0
    assert kept["b"]["exp_avg"].tolist() == [4.0]


def test_a_state_over_several_weights_cannot_be_kept():
    for name in ("SGD", "Adam"):
        own = model()
        optimizers.check_maskable(optimizers.build(config(name), own), own)
    own = model()
    with pytest.raises(ConfigError, match=r"rewind\.optimizer: Adafactor keeps"):
        optimizers.check_maskable(optimizers.build(config("Adafactor"), own), own)
