import dataclasses
import hashlib
import json

import pytest
import torch
from training_helpers import DROPOUT

from lth_cli.config.errors import ConfigError
from lth_cli.training.trajectory import FromState, Initial, Moved

CHANGES = [
    ["seed=1"],
    ["seeds.init=1"],
    ["seeds.order=1"],
    ["seeds.augment=1", "dataset.augment.crop=1"],
    ["seeds.augment=2", "dataset.augment.crop=1"],
    [*DROPOUT],
    ["seeds.augment=1", *DROPOUT],
    ["model=conv2"],
    ["model.hidden=[30]"],
    ["model.init.weights=orthogonal"],
    ["dataset=mnist1d"],
    ["dataset.label_noise=0.1"],
    ["dataset.validation=0.1"],
    ["dataset.subset.fraction=0.5"],
    ["dataset.subset.classes=[0,1]"],
    ["dataset.normalize=null"],
    ["dataset.augment.crop=1"],
    ["dataset.augment.flip=true"],
    ["dataset.label_noise=0.1", "seeds.split=1"],
    ["optimizer=sgd"],
    ["optimizer.lr=1e-3"],
    ["optimizer.weight_decay=1e-4"],
    ["schedule.warmup=3it"],
    ["schedule=cosine"],
    ["schedule=cosine", "training.length=3ep"],
    ["schedule=linear"],
    ["schedule=multi_step"],
    ["schedule=cyclic"],
    ["training.batch_size=61"],
    ["training.drop_last=true"],
    ["training.shuffle=false"],
    ["training.label_smoothing=0.1"],
    ["training.gradient_clip=1.0"],
    ["precision=bf16"],
    ["precision.channels_last=false"],
    ["threads=2"],
]
SAME = [
    ["name=x"],
    ["runs_dir=elsewhere"],
    ["data.workers=0"],
    ["data.root=/nowhere"],
    ["checkpoint.every=3it"],
    ["evaluation.every=3it"],
    ["evaluation.batch_size=7"],
    ["evaluation.train=false"],
    ["pruning=random"],
    ["pruning.rounds=3"],
    ["rewind.to=3it"],
    ["controls.kinds=[random]"],
    ["seeds.mask=1"],
    ["seeds.augment=1"],
    ["seeds.split=0"],
    ["seeds.init=0"],
    ["model.prune_output=true"],
    ["training.length=3ep"],
    ["training.length=16it"],
    ["schedule.warmup=0ep"],
    ["device=auto"] if not (torch.cuda.is_available() or torch.backends.mps.is_available()) else [],
]


def test_everything_that_changes_numbers_changes_the_identity(make_dense):
    identities = {(): make_dense().identity} | {tuple(o): make_dense(*o).identity for o in CHANGES}
    assert len(set(identities.values())) == len(CHANGES) + 1


@pytest.mark.parametrize("overrides", SAME)
def test_what_changes_no_number_does_not(make_dense, overrides):
    assert make_dense(*overrides).identity == make_dense().identity


def test_durations_count_as_steps(make_dense):
    epochs = make_dense("schedule=multi_step", "schedule.milestones=[1ep]", "schedule.warmup=1ep")
    steps = make_dense("schedule=multi_step", "schedule.milestones=[8it]", "schedule.warmup=8it")
    assert epochs.steps_per_epoch == 8
    assert epochs.identity == steps.identity


def test_without_shuffling_the_order_seed_says_nothing(make_dense):
    assert (
        make_dense("training.shuffle=false").identity
        == make_dense("training.shuffle=false", "seeds.order=5").identity
    )


def test_identity_is_the_digest_of_canonical_json(make_dense):
    trajectory = make_dense()
    text = json.dumps(
        trajectory.description, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    assert trajectory.identity == hashlib.sha256(text.encode()).hexdigest()


def test_start_mask_and_first_step_count(make_dense, make_ticket):
    dense, ticket = make_dense(), make_ticket()
    variants = [
        dense,
        ticket,
        make_ticket(seed=1),
        make_ticket(start=3),
        dataclasses.replace(ticket, masks={}),
        dataclasses.replace(ticket, first_step=3),
        dataclasses.replace(ticket, start=FromState(dense, 3)),
        dataclasses.replace(ticket, start=Initial(0)),
        dataclasses.replace(ticket, start=Initial(1)),
        dataclasses.replace(ticket, start=FromState(make_dense("seed=1"), 0)),
    ]
    assert len({variant.identity for variant in variants}) == len(variants)
    again = dataclasses.replace(ticket, masks={k: v.clone() for k, v in ticket.masks.items()})
    assert again.identity == ticket.identity


def test_learning_rates_and_horizon(make_dense):
    trajectory = make_dense("schedule=linear", "schedule.warmup=4it", "optimizer.lr=0.5")
    assert trajectory.horizon == 16
    assert [trajectory.learning_rate(step) for step in (0, 2, 4, 10, 16)] == [0.0, 0.25, 0.5, 0.25, 0.0]


def test_no_whole_batch_is_a_wrong_request(make_dense):
    with pytest.raises(ConfigError, match=r"^training\.batch_size: "):
        make_dense("training.batch_size=1000", "training.drop_last=true")
    assert make_dense("training.batch_size=1000").steps_per_epoch == 1


def test_identities_without_teachers_stay_what_they_are(make_dense):
    """A change of this value means that no stored training is reused any more: raise NUMERICS_VERSION knowingly."""
    pinned = "e2301986a85430c2d868407d01a6c107e8d644a570b3a7ddc8fc79c1c7832582"
    assert make_dense("precision.channels_last=true").identity == pinned


def test_a_moved_start_counts_by_what_it_is_moved_by(make_ticket):
    ticket = make_ticket()
    shapes = {name: mask.shape for name, mask in ticket.masks.items()}

    def moved(**by):
        vector = {name: torch.zeros(shape) for name, shape in shapes.items()} | by
        return dataclasses.replace(ticket, start=Moved(FromState(ticket, 0), vector))

    name, shape = next(iter(shapes.items()))
    assert moved().identity == moved().identity
    variants = [ticket, moved(), moved(**{name: torch.ones(shape)}), moved(**{name: -torch.ones(shape)})]
    assert len({variant.identity for variant in variants}) == len(variants)
    assert moved().description["start"].keys() == {"trajectory", "step", "moved_by"}
