"""SpReME: terms of known equations, its pieces by hand, bytes after a stop, adaptation and pruning by commands."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.data.systems import SYSTEMS, systems
from lth_cli.experiments.plan import make_plan
from lth_cli.models.equations import Equations, derivatives, stlsq
from lth_cli.objectives.trajectories import SOFT, Trajectories, integrate
from lth_cli.store.masks import load_mask
from lth_cli.store.states import load_state
from lth_cli.training.engine import Interrupted
from lth_cli.training.loop import Trainer, initial_state
from lth_cli.training.spreme import SpReME, late_errors, regress

SYSTEM = [
    "dataset=systems",
    "dataset.span=2",
    "dataset.dt=0.05",
    "dataset.trajectories=4",
    "dataset.tests=2",
    "dataset.environments=2",
]
RUN = [
    *SYSTEM,
    "objective=trajectories",
    "objective.window=4",
    "model=equations",
    "model.degree=2",
    "update=spreme",
    "training.length=12it",
    "optimizer.lr=0.03",
]
SMALL = {"span": 2.0, "dt": 0.05, "trajectories": 4, "tests": 2}


def test_library_is_that_of_scikit_learn_and_differentiable():
    from sklearn.preprocessing import PolynomialFeatures

    model = Equations(environments=2, states=3, degree=3, sines=True)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    known = PolynomialFeatures(3)
    expected = known.fit_transform(x.detach().numpy())
    assert model.terms[: expected.shape[1]] == list(known.get_feature_names_out())
    assert model.terms[-6:] == [
        "sin(x0)",
        "sin(x1)",
        "sin(x2)",
        *(f"sin(x{i} + x{j})" for i, j in ((0, 1), (0, 2), (1, 2))),
    ]
    found = model.library(x)
    assert np.allclose(found.detach()[:, : expected.shape[1]], expected)
    assert torch.allclose(found[:, -1], (x[:, 1] + x[:, 2]).sin())
    assert torch.autograd.gradcheck(model.library, (x,))


@pytest.mark.parametrize("name", SYSTEMS)
def test_equations_with_the_true_terms_give_the_trajectories(name):
    """Coefficients by regression on exact derivatives; Runge-Kutta then meets scipy's integration."""
    system = SYSTEMS[name]
    found = systems(None, system=name, environments=1, variance=0.0, **SMALL)
    model = Equations(environments=1, states=len(system.terms), degree=2, sines=name == "pendulum")
    states = found.train["states"][:, 0].double().flatten(0, 1)
    parameters = system.presets[0] if system.presets else system.parameters
    parameters = np.array(parameters).astype(np.float16).astype(np.float64)
    slopes = torch.tensor(np.array([system.derivative(x, parameters) for x in states.numpy()]))
    allowed = torch.tensor([[term in equation for equation in system.terms] for term in model.terms])
    with torch.no_grad():
        phi = model.library(states)
        model.coefficients.weight.copy_(stlsq(phi, slopes, threshold=0.0, alpha=1e-12, allowed=allowed).T)
        batch = found.train
        predicted = integrate(model, batch["states"][:, :, 0], batch["spacing"], batch["states"].shape[2], 4)
    assert torch.allclose(predicted, batch["states"], rtol=1e-3, atol=1e-3)


def test_stlsq_and_derivatives_are_those_of_pysindy():
    pysindy = pytest.importorskip("pysindy")
    source = np.random.default_rng(0)
    phi, truth = source.normal(size=(50, 6)), np.zeros((6, 2))
    truth[[0, 3], 0], truth[[1, 4], 1] = (1.0, -0.2), (0.03, 2.0)
    targets = phi @ truth + 0.01 * source.normal(size=(50, 2))
    theirs = pysindy.STLSQ(threshold=0.05, alpha=0.5).fit(phi, targets).coef_.T
    everything = torch.ones(6, 2, dtype=torch.bool)
    ours = stlsq(torch.tensor(phi), torch.tensor(targets), threshold=0.05, alpha=0.5, allowed=everything)
    assert np.allclose(ours, theirs, atol=1e-10)
    assert (theirs != 0).sum() == 3
    path = np.cumsum(source.normal(size=(30, 2)), axis=0)
    theirs = pysindy.SmoothedFiniteDifference(smoother_kws={"window_length": 5})._differentiate(path, 0.1)
    assert np.allclose(derivatives(torch.tensor(path)[None], 0.1)[0], theirs)


def test_terms_that_are_not_allowed_stay_out():
    phi = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    allowed = torch.tensor([[True], [False], [True]])
    found = stlsq(
        phi, phi @ torch.ones(3, 1, dtype=torch.float64), threshold=0.1, alpha=1e-9, allowed=allowed
    )
    assert found[1].item() == 0.0
    assert (found[[0, 2]] != 0).all()
    assert not stlsq(phi, phi[:, :1], threshold=10.0, alpha=1e-9, allowed=allowed).any()


def test_windows_share_their_ends():
    objective = Trajectories(window=3)
    batch = {"states": torch.arange(9.0).view(1, 1, 9, 1), "spacing": torch.ones(1)}
    seen = objective.view({**batch, SOFT: torch.ones(1)}, 0, 0)
    assert seen["windows"][:, 0, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert objective.view(batch, 0, 0)["windows"].shape == (8, 1, 2, 1)
    assert objective.view(batch, None, 0) is batch


def test_errors_stay_finite_where_trajectories_do_not():
    model = Equations(environments=1, states=1, degree=5)
    with torch.no_grad():
        model.coefficients.weight.fill_(100.0)
    objective = Trajectories()
    batch = {"states": torch.rand(2, 1, 40, 1), "spacing": torch.ones(2)}
    sums = objective.measure(objective.outputs(model, batch), batch)
    assert sums["error"].item() == 2.0
    assert torch.isfinite(sums["loss"])


def test_its_numbers_are_told_from_those_before():
    assert make_plan(load("train", RUN).config).dense.description["update_numerics"] == 2


def trainer_of(*more, steps):
    trajectory = make_plan(load("train", [*RUN, *more]).config).dense
    trainer = Trainer(trajectory, initial_state(trajectory, 0))
    trainer.run(steps, lambda: False, lambda step, loss: None)
    return trainer


def test_a_step_written_out():
    """The third step from the memory after two, on the authors' losses, sums over environments."""
    trainer = trainer_of(
        "optimizer=sgd", "optimizer.lr=1e-3", "update.penalty=0.1", "update.growth=0.5", steps=2
    )
    before = {name: held.clone() for name, held in trainer.memory["spreme"].items()}
    batch = next(trainer.trajectory.batches.starting_at(2))
    trainer.run(3, lambda: False, lambda step, loss: None)
    after, objective = trainer.memory["spreme"], trainer.trajectory.recipe.objective
    model = trainer.trajectory.recipe.build(0)
    with torch.no_grad():
        model.coefficients.weight.copy_(before["coefficients"])
        model.gates.copy_(before["gates"])
    environments, values = model.environments, batch["states"][:, 0].numel()
    seen = objective.view(batch, 2, 0)
    loss = torch.nn.functional.smooth_l1_loss(
        objective.outputs(model, seen), seen["windows"], reduction="sum"
    )
    loss = loss / values
    (slope,) = torch.autograd.grad(loss, [model.coefficients.weight])
    scale = before["scale"]
    stepped = (before["coefficients"] * scale - 1e-3 * slope / scale) / scale
    stepped = torch.where(stepped.abs() < 1e-3, 0.0, stepped)
    torch.testing.assert_close(after["coefficients"], stepped)
    with torch.no_grad():
        model.coefficients.weight.copy_(stepped)
    seen = objective.view({**batch, SOFT: batch["spacing"]}, 2, 0)
    loss = torch.nn.functional.mse_loss(objective.outputs(model, seen), seen["windows"])
    loss = environments * (loss + 0.1 * 1.5 ** (2 - 1) * model.gates.sigmoid().sum())
    (slope,) = torch.autograd.grad(loss, [model.gates])
    there = model.by_environment(stepped != 0).any(0).T & (before["gates"].sigmoid() > 1e-5)
    expected = torch.where(there, before["gates"] - 1e-3 * slope, -1e10)
    torch.testing.assert_close(after["gates"], expected, rtol=1e-4, atol=1e-4)


def test_a_penalty_closes_all_gates_for_good_and_the_model_keeps_the_best_so_far():
    trainer = trainer_of("update.penalty=1e9", "update.growth=0.5", "optimizer.lr=0.3", steps=60)
    held, model = trainer.memory["spreme"], trainer.model
    assert not (held["gates"].sigmoid() > 1e-5).any()
    assert torch.isfinite(held["gates"]).all()
    assert torch.equal(model.coefficients.weight, held["best_coefficients"])
    assert torch.equal(model.gates, held["best_gates"])
    assert model.open.any()
    batch = next(trainer.trajectory.batches.starting_at(0))
    assert late_errors(model, batch).mean().item() == pytest.approx(held["error"].item(), rel=1e-3)


def test_terms_of_clean_data_are_found():
    """Regression leaves too many terms at first; the gates leave those of the system."""
    more = ("training.length=700it", "update.penalty=1e-5", "update.growth=0.01", "update.every=5")
    model = trainer_of(*more, steps=700).model
    there = [
        {term for term, kept in zip(model.terms, row, strict=True) if kept}
        for row in (model.by_environment(model.coefficients.weight) * model.open.T != 0).any(0).T
    ]
    assert there == [set(equation) for equation in SYSTEMS["lotka_volterra"].terms]


def test_stopped_in_the_middle_and_gone_on_gives_the_same_bytes(make_engine, stop_after):
    trajectory = make_plan(load("train", RUN).config).dense
    straight, broken = make_engine("straight"), make_engine("broken", "3it", stop=stop_after(8))
    straight.advance(trajectory, 12)
    with pytest.raises(Interrupted):
        broken.advance(trajectory, 12)
    again = make_engine("broken", "3it")
    again.advance(trajectory, 12)
    ends = [engine.store.state_path(trajectory.identity, 12).read_bytes() for engine in (straight, again)]
    assert ends[0] == ends[1]


def rows(folder):
    with (folder / "equations.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_commands(lth, tmp_path):
    """Train, ask, adapt to a new environment with the mask that was found, prune terms in all environments at once."""
    assert lth("train", *RUN, "name=found").code == 0
    asked = lth("analyze", "found", "analysis=equations")
    assert asked.code == 0, asked.err
    (folder,) = (tmp_path / "runs" / "found" / "analysis").glob("equations-*")
    found = rows(folder)
    assert set(found) == {"trained", "stlsq"}
    assert float(found["stlsq"]["missing"]) == 0
    adapted = lth(
        *(
            "train",
            *RUN,
            "name=adapted",
            "dataset.new=true",
            "dataset.environments=1",
            "dataset.trajectories=1",
        ),
        *("update.train_mask=false", "update.start=normal", "pretrain.weights=found:0@end"),
    )
    assert adapted.code == 0 and "drawn anew" in adapted.out + adapted.err
    again = lth(
        *("train", *RUN, "name=again", "training.length=1it", "update.train_mask=false"),
        *("pretrain.weights=found:0@end", "pretrain.fresh=[coefficients.weight]"),
    )
    assert again.code == 0, again.err
    start, end = (
        load_state(tmp_path / "runs" / name / "round_00" / "checkpoints" / f"step_{step:08d}.safetensors")
        for name, step in (("again", 0), ("found", 12))
    )
    assert not start.weights["coefficients.weight"].any() and end.weights["coefficients.weight"].any()
    assert torch.equal(start.weights["gates"], end.weights["gates"])
    pruned = lth(
        *("prune", *RUN, "name=pruned", "update.train_mask=false", "pruning.pattern=block_2x1"),
        *("pruning.rounds=2", "pruning.fraction=0.5", "rewind.to=0"),
    )
    assert pruned.code == 0, pruned.err
    mask = load_mask(tmp_path / "runs" / "pruned" / "round_02" / "mask.safetensors")["coefficients.weight"]
    first, second = mask.view(2, 2, -1).unbind(1)
    assert torch.equal(first, second)
    assert mask.sum() == 6


def test_other_networks_are_refused(lth, small):
    assert lth("train", *small, "name=a").code == 0
    refused = lth("analyze", "a", "analysis=equations")
    assert refused.code != 0 and "is of model=equations" in refused.err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"span": 0.2}, "dataset.span"),
        ({"new": True}, "the new environment is one"),
        ({"environments": 10}, "has 9; 10 are asked for"),
        ({"system": "linear", "variance": 1e4}, r"a state is beyond 1e\+06 at time .*lower dataset.variance"),
        ({"system": "pendulum", "variance": 1e4, "span": 0.3, "tests": 1}, "1,000 steps for each state"),
        ({"system": "linear", "variance": 1e12}, "dataset.variance: 1e.12 draws a parameter of .* float16"),
        ({"noise": 1e308}, r"dataset.noise: 1e\+308 takes states beyond 1e\+06"),
    ],
)
def test_wrong_systems(wrong, message):
    with pytest.raises(ConfigError, match=message):
        systems(None, **{**SMALL, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["update=spreme", "training.batch_size=1438"], "SpReME trains model=equations, not"),
        (["model=equations"], "needs environments, states, which this data set"),
        ([*SYSTEM, "objective=regression"], "regression needs inputs"),
        (["objective=trajectories"], "trajectories needs states"),
        ([*RUN, "update.ridges=[0]"], "update.ridges"),
        ([*RUN, "dataset.system=duffing"], "dataset.system"),
        (
            [*RUN, "training.batch_size=3"],
            "a batch has 3 of the 4 training examples, and every step of .* sees all",
        ),
        ([*RUN, "pretrain.fresh=[gates]"], "pretrain.fresh is of pretrain.weights"),
    ],
)
def test_wrong_requests(wrong, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(load("train", wrong).config)


def test_noise_is_of_training_states_alone():
    clean, noisy = (systems(None, **SMALL, noise=noise) for noise in (0.0, 0.1))
    assert torch.equal(clean.test["states"], noisy.test["states"])
    change = (noisy.train["states"] - clean.train["states"]).std((0, 2)) / clean.train["states"].std((0, 2))
    assert torch.allclose(change, torch.full_like(change, 0.1), rtol=0.3)
    assert torch.equal(noisy.train["late"][:, :, 0], noisy.train["states"][:, :, -1])
    assert SpReME().passes == 2


def test_trajectories_may_be_spaced_unequally():
    """Regression finds the terms of the linear system where half of the trajectories are twice as coarse."""
    made = systems(None, system="linear", environments=1, variance=0.0, **{**SMALL, "span": 4.0, "dt": 0.01})
    fine, spacing = made.train["states"], made.train["spacing"]
    half, late = fine.shape[2] // 2, 5
    parts = [fine[:2, :, : half + late], fine[2:, :, ::2]]
    length = min(part.shape[2] for part in parts)
    states = torch.cat([part[:, :, :length] for part in parts])
    batch = {
        "states": states[:, :, : length - late],
        "late": states[:, :, length - late - 1 :],
        "spacing": torch.cat([spacing[:2], 2 * spacing[2:]]),
    }
    model = Equations(environments=1, states=3, degree=1)
    regress(model, batch, [0.01], [0.05], torch.ones_like(model.coefficients.weight, dtype=torch.bool))
    rows = dict(zip(model.terms, model.by_environment(model.coefficients.weight)[0], strict=True))
    expected = torch.tensor([[-0.1, -2.0, 0.0], [2.0, -0.1, 0.0], [0.0, 0.0, -0.3]])
    found = torch.stack([rows[f"x{number}"] for number in range(3)]).detach()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_what_it_trains_cannot_be_frozen():
    with pytest.raises(ConfigError, match=r"SpReME trains coefficients\.weight"):
        make_plan(load("train", [*RUN, "training.freeze=[coefficients.weight]"]).config)
    make_plan(load("train", [*RUN, "training.freeze=[gates]", "update.train_mask=false"]).config)
