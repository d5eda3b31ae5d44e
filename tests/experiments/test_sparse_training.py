"""`lth train` with masks that change: what the run keeps, and what verify says of it."""

import dataclasses
import json
import math

import pytest
import torch
from torch.nn import functional

from lth_cli.config.compose import load, validate
from lth_cli.config.spec import Interface
from lth_cli.data.digits import digits
from lth_cli.data.source import Place
from lth_cli.experiments import session
from lth_cli.experiments.plan import make_plan
from lth_cli.experiments.space import needed
from lth_cli.models.build import build
from lth_cli.pruning.mask import layer_counts
from lth_cli.store.masks import load_mask, save_mask
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state, save_state

RIGL = ("sparse_training=rigl", "sparse_training.every=3it", "sparse_training.density=0.2")
GRADUAL = ("sparse_training=gradual", "sparse_training.every=3it", "sparse_training.density=0.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    folder = tmp_path_factory.mktemp("sparse")
    done = lth_in(folder, "train", *small, *RIGL, "checkpoint.keep=[8it]", "name=rigl")
    assert done.code == 0, done.err
    return folder


def test_a_round_has_the_masks_of_its_end(folder):
    round_ = Run.open(folder / "runs" / "rigl").round(0)
    first, last = (round_.checkpoint(step) for step in (0, max(round_.checkpoints())))
    masks = round_.masks()
    assert all(torch.equal(mask, last.masks[name]) for name, mask in masks.items())
    assert not all(torch.equal(mask, first.masks[name]) for name, mask in masks.items())
    kept = sum(int(mask.sum()) for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert kept == math.ceil(total / 5)
    assert round_.summary["density"] == kept / total
    assert {8} < set(round_.checkpoints())


def test_the_line_of_a_round_has_the_density_of_its_end(tmp_path, lth_in, small):
    done = lth_in(tmp_path, "train", *small, *GRADUAL, "name=gradual")
    assert "round 0 (20 % of weights)" in done.err, done.err


def test_it_is_reused_and_copies_are_trained_from_its_middle(folder, lth_in, small):
    again = lth_in(folder, "train", *small, *RIGL, "name=again")
    assert again.code == 0, again.err
    assert Run.open(folder / "runs" / "again").round(0).summary["steps_trained"] == 0
    asked = lth_in(folder, "analyze", "rigl", "analysis=instability", "analysis.at=[8it]")
    assert asked.code == 0, asked.err
    assert "cannot be repeated" not in asked.err
    assert lth_in(folder, "verify").out.count("no faults") == 3


def test_verify_knows_the_masks_of_every_state(folder, lth_in, tmp_path):
    """A weight that the mask of the end keeps may be pruned at the start, and the other way round."""
    round_ = Run.open(folder / "runs" / "again").round(0)
    step = max(round_.checkpoints())
    path = round_.checkpoints()[step]
    state = load_state(path)
    name = next(iter(state.masks))
    weights = {**state.weights, name: torch.where(state.masks[name], state.weights[name], 1.0)}
    identity = round_.summary["trajectory"]
    path.unlink()
    save_state(path, dataclasses.replace(state, weights=weights), identity)
    told = lth_in(folder, "verify", "again").out
    assert f"pruned weights of {name} are not zero" in told
    masks = load_mask(round_.mask_path)
    save_mask(round_.mask_path, {**masks, name: ~masks[name]})
    assert f"{name} is masked otherwise at the end" in lth_in(folder, "verify", "again").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prune",), "lth prune prunes between trainings"),
        (("train", "sparse_training.end=1000ep"), "sparse_training.end"),
        (("train", "training.freeze=['*0.weight']"), "these are frozen"),
        (("train", "sparse_training.layer_densities={other: 0.5}"), "matches no tensor"),
        (("train", "sparse_training.density=1e-5"), "one weight is kept at least"),
        (
            (
                "train",
                "sparse_training=gradual",
                "sparse_training.pattern=block_8x8",
                "sparse_training.density=0.01",
            ),
            "one block of every tensor is kept at least",
        ),
        (("prune", "pruning=rigl"), "lth train sparse_training=rigl"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(words, told, tmp_path, lth_in, small):
    refused = lth_in(tmp_path, *words[:1], *small, *RIGL, *words[1:], "name=no")
    assert refused.code == 2 and told in refused.err, refused.err
    assert not (tmp_path / "runs" / "no").exists()


def test_pre_training_is_dense(tmp_path, lth_in, small):
    done = lth_in(tmp_path, "train", *small, *RIGL, "pretrain.length=4it", "name=on")
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "on")
    assert "sparse_training" not in run.origins()[0].summary["description"]
    assert run.round(0).checkpoint(4).masks
    assert lth_in(tmp_path, "verify", "on").code == 0


@pytest.fixture(scope="module")
def middle(folder, lth_in, small):
    """A run whose mask of the middle keeps more weights than that of the end, and the state there."""
    done = lth_in(folder, "train", *small, *GRADUAL, "checkpoint.keep=[8it]", "name=gradual")
    assert done.code == 0, done.err
    run = Run.open(folder / "runs" / "gradual")
    state = run.round(0).checkpoint(8)
    assert layer_counts(state.masks) != layer_counts(run.round(0).masks())
    return folder, run, state


def test_grand_of_the_middle_is_by_the_weights_kept_there(middle, lth_in):
    folder, run, state = middle
    asked = ("analysis=examples", "analysis.states=[0@8it]")
    done = lth_in(folder, "analyze", "gradual", *asked, "--json", "-q")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["tables"]["scores"][:5]
    model = build(validate(run.config).model, Interface.classifier((1, 8, 8), 10), 0).eval()
    model.load_state_dict(state.weights)
    loaded = digits(place=Place(None, folder, False, 0))
    for row in rows:
        inputs = (loaded.train_inputs[row["index"]][None] - 0.3053) / 0.3760
        model.zero_grad()
        functional.cross_entropy(model(inputs), torch.tensor([row["label"]])).backward()
        slopes = {name: weight.grad for name, weight in model.named_parameters()}
        slopes |= {name: slopes[name] * mask for name, mask in state.masks.items()}
        expected = math.sqrt(sum(float(slope.square().sum()) for slope in slopes.values()))
        assert row["grand"] == pytest.approx(expected, rel=1e-4)


def test_curvature_of_the_middle_is_by_the_weights_kept_there(middle, lth_in):
    folder, _, state = middle
    asked = ("analyze", "gradual", "analysis=curvature", "analysis.examples=60", "analysis.probes=2")
    states = ("analysis.states=[0@8it,0@end]", "analysis.eigenvalues=1")
    done = lth_in(folder, *asked, *states, "--json", "-q")
    assert done.code == 0, done.err
    sizes = {"middle": {}, "end": {}}
    for row in json.loads(done.out)["tables"]["trace"]:
        sizes["end" if row["state"].endswith("end") else "middle"][row["layer"]] = row["weights"]
    kept = layer_counts(state.masks)
    assert sizes["middle"] == {"all": sum(kept.values()), **kept}
    assert sizes["end"]["all"] == math.ceil(sum(mask.numel() for mask in state.masks.values()) / 5)
    for step, size in (("end", sizes["end"]["all"]), ("8it", sum(kept.values()))):
        refused = lth_in(folder, *asked, f"analysis.states=[0@{step}]", f"analysis.eigenvalues={size}")
        assert refused.code == 2, refused.err
        assert f"the Hessian at gradual:0@{step} has {size} rows" in refused.err


@pytest.mark.parametrize(
    "kind",
    [RIGL, ("sparse_training=straight_through",), ("sparse_training=edge_popup",)],
    ids=["rigl", "straight", "popup"],
)
def test_the_estimate_of_space_counts_masks_and_kept_states(kind, tmp_path, lth_in, small, monkeypatch):
    told = []
    monkeypatch.setattr(session, "shortage", lambda plan, trainings, _: told.append(needed(plan, trainings)))
    wide = ("model.hidden=[300,100]", "optimizer=sgd", "optimizer.momentum=0", "checkpoint.keep=[5it,8it]")
    done = lth_in(tmp_path, "train", *small, *wide, *kind)
    assert done.code == 0, done.err
    sizes = [path.stat().st_size for path in (tmp_path / "runs" / ".store").rglob("*.safetensors")]
    assert len(sizes) == 4
    assert told == [pytest.approx(sum(sizes) + max(sizes), rel=0.05)]  # and a resume point


def test_masks_that_are_not_meant_to_change_are_no_warning(small):
    assert make_plan(load("train", [*small, "sparse_training=static"]).config).warnings == ()


@pytest.mark.parametrize(
    ("kind", "further"), [(GRADUAL, "pretrain.length=14it"), (RIGL, "sparse_training.begin=10it")]
)
def test_masks_that_never_change_are_told_of(small, kind, further):
    warnings = [make_plan(load("train", [*small, *kind, *more]).config).warnings for more in ((), (further,))]
    assert warnings[0] == ()
    assert "masks change at no step of the training, which goes from step" in warnings[1][0]


def test_the_masks_of_the_end_are_retrained_as_any(folder, lth_in):
    sparse = Run.open(folder / "runs" / "rigl").round(0)
    masks = sparse.masks()
    first = {}
    for name, words in {
        "tuned": "rewind=fine_tune",
        "ticket": "rewind.to=0it",
        "fresh": "control=reinit",
    }.items():
        done = lth_in(folder, "rewind", "rigl", words, f"name={name}")
        assert done.code == 0, done.err
        round_ = Run.open(folder / "runs" / name).round(1)
        assert all(torch.equal(mask, masks[tensor]) for tensor, mask in round_.masks().items())
        first[name] = round_.checkpoint(min(round_.checkpoints()))
        assert not first[name].masks  # they stay as they are
    initial = Run.open(folder / "runs" / "ticket").origin(0).checkpoint(0).weights
    final = sparse.checkpoint(max(sparse.checkpoints())).weights
    for tensor, mask in masks.items():
        assert torch.equal(first["tuned"].weights[tensor], final[tensor])
        assert torch.equal(first["ticket"].weights[tensor], torch.where(mask, initial[tensor], 0.0))
        assert initial[tensor].all()  # of the dense network
        assert torch.equal(first["fresh"].weights[tensor] != 0, mask)
        assert not torch.equal(first["fresh"].weights[tensor], first["ticket"].weights[tensor])


def test_there_is_no_inverse_of_masks_without_scores(folder, lth_in):
    refused = lth_in(folder, "rewind", "rigl", "control.mask=inverted")
    assert refused.code == 2 and "control.mask: inverted is about the scores of a round" in refused.err
