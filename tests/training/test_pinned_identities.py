"""Identities as they were released: one that changes by mistake makes everybody train finished work again.

A change of numbers changes them, raises NUMERICS_VERSION or says in CHANGELOG.md which trainings it is about, and then
they are written here anew: `python tests/training/test_pinned_identities.py` prints them.
"""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
from pathlib import Path

import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.experiments.plan import Plan, make_plan
from lth_cli.training.trajectory import Distilled, FromState, Initial, KeptSigns, Moved, Trajectory

HERE = ("device=cpu", "threads=1", "training.length=2ep", "dataset.subset.fraction=0.3")


def _plan(*overrides: str) -> Plan:
    return make_plan(load("prune", [*HERE, *overrides]).config)


def _dense(*overrides: str) -> Trajectory:
    return _plan(*overrides).dense


def _ticket(*overrides: str, first_step: int = 5) -> Trajectory:
    """Every other weight pruned, rewound to a step."""
    plan = _plan(*overrides)
    masks = {
        name: (torch.arange(shape[0] * shape[1]) % 2 == 0).reshape(shape)
        for name, shape in plan.prunable_shapes.items()
    }
    start = FromState(plan.dense, first_step)
    return dataclasses.replace(plan.dense, start=start, masks=masks, first_step=first_step)


def _moved() -> Trajectory:
    ticket = _ticket()
    assert isinstance(ticket.start, FromState)
    by = {name: torch.full(mask.shape, 0.5) * mask for name, mask in ticket.masks.items()}
    return dataclasses.replace(ticket, start=Moved(ticket.start, by))


def _kept_signs() -> Trajectory:
    ticket = _ticket()
    assert isinstance(ticket.start, FromState)
    return dataclasses.replace(ticket, start=KeptSigns(ticket.start, 7))


def _distilled(**settings: object) -> Trajectory:
    plan = _plan()
    teacher = plan.own_teacher(FromState(plan.dense, 16))
    taught = Distilled(
        (teacher,), "kl", 4.0, 0.9, 0.1, begins=0, ends=None, every=1, sample=None, dtype="fp32"
    )
    return dataclasses.replace(plan.dense, distilled=dataclasses.replace(taught, **settings))  # type: ignore[arg-type]


def _streamed() -> Trajectory:
    """Pixel maps of three classes, whose files are the same bytes whatever wrote them."""
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            for label in ("ant", "bee", "cat"):
                place = Path(folder) / split / label
                place.mkdir(parents=True)
                for number in range(4):
                    pixels = bytes((number * 7 + column) % 256 for column in range(9 * 9 * 3))
                    (place / f"{number}.ppm").write_bytes(b"P6\n9 9\n255\n" + pixels)
        return _dense(
            "dataset=imagenet", f"dataset.path={folder}", "dataset.size=8", "dataset.subset.fraction=1"
        )


PINNED = {
    "dense": "e2301986a85430c2d868407d01a6c107e8d644a570b3a7ddc8fc79c1c7832582",
    "another seed": "37f2c88f67a5ba7acc3488b0249e5d0f30027db61c120d1b466b9c71e7174bc6",
    "seeds of their own": "1bc876535971e7a8b10278ac91328e1d3b58425acbea73ff805946d30a6491d2",
    "augmented": "1b5ae7d1e2ddfd2bce02a2d83f55763f177101d6736399726c75433ffa25bf7d",
    "dropout": "8e60ebf4f32a34a79fd66c6e00bb42506d976da55e06dcdc5983b9fa2032b008",
    "residual, SGD, steps of the rate": "1c08e6abe4eccc6742b58fa1d8c50fe6962512a24f63917d5bab10e39b4bf67d",
    "horizon in the schedule": "96f82e4539c0e6a592034e0ef31bcfae9c10fb482ffa5d8860069f1ea3878f26",
    "smoothed and clipped": "ec907518958ac4f831a8d3c657857d94e630b08c22fd41b1530de5f42ddd9f10",
    "stored order": "23d0504df5dba5c4761ec309b232cb98b9383f336f3b9d7d36726276775ca538",
    "bf16": "fb969d9e841110c5131cee719b4ec3621ec8b438e5e86df6f2e267ee96ee8568",
    "validation split, classes": "9ea25f6792750353586fde305a6c85a4c1dff578211a72f1d89138b2dd4787e4",
    "streamed": "e34822ddf338f4a05fbe326c5dc4947ff18bdced01eceb238591459b4dc19e4f",
    "pre-trained": "ef5cf28143001c243db2873590c3191669fc791c83f9b7b4ee3d7b6f955318c2",
    "pre-trained on other classes": "b1b1fa9af4d10b1537c25e94c6ff90985b5e33323340efced30ccea9b70d8c29",
    "frozen": "c6b66fb4d6bfc3024c1582aa8268a48dc5cf1058ad32f9ac440b5c86738530fd",
    "two processes": "3edc8ca551497a7a7da428ea7510de2a211d243970ed59cad00de390d56380b9",
    "masked and rewound": "10ccecd3af6262fe3d4f24dc72bfdb8fed2d3e2aead1390afa4bddbd6ec666c7",
    "masked from the start": "f6d83e6bdc972460e113ef3e85405933b12a4f7903f8c4b4a695c6bfb07a9330",
    "rate held": "15e8e17179bbdce7143e47793f22e5979bbf2b4effb2e51084d38e56033533a6",
    "drawn anew": "5a0ddc6757e8b6f0d2049b06d3980ab2d37de4796da19f37bd43e1818373b891",
    "signs kept": "57cf4f39af8b75f2ba800c437b2d34720ae0a52460a2d522d5d34d9a37166f00",
    "moved": "6d7d077ba4d95f5530cbb221738afe4c068eba844a4a103ff2a6466a22e5e4f3",
    "taught": "2acb735e233cf4cd9eb5c52a9cb9f006125bb28e2182feffef0bcfceff5362c6",
    "taught by kept answers": "c363595a3e83cfac5fecaed986b1098124e542b88f69aad09f28b47eaef7242d",
}

KINDS = {
    "dense": _dense,
    "another seed": lambda: _dense("seed=1"),
    "seeds of their own": lambda: _dense("seeds.init=3", "seeds.order=4"),
    "augmented": lambda: _dense("dataset.augment.crop=1", "dataset.augment.flip=true", "seeds.augment=5"),
    "dropout": lambda: _dense("model=wide_resnet", "model.depth=10", "model.width=1", "model.dropout=0.3"),
    "residual, SGD, steps of the rate": lambda: _dense(
        "model=resnet20", "optimizer=sgd", "schedule=multi_step"
    ),
    "horizon in the schedule": lambda: _dense("schedule=cosine", "schedule.warmup=3it"),
    "smoothed and clipped": lambda: _dense("training.label_smoothing=0.1", "training.gradient_clip=1.0"),
    "stored order": lambda: _dense("training.shuffle=false", "training.drop_last=true"),
    "bf16": lambda: _dense("precision=bf16", "precision.channels_last=false"),
    "validation split, classes": lambda: _dense("dataset.validation=0.1", "dataset.subset.classes=[2,5,7]"),
    "streamed": _streamed,
    "pre-trained": lambda: _dense("pretrain.length=4it", "pretrain.subset={fraction:0.1}"),
    "pre-trained on other classes": lambda: _dense(
        "pretrain.length=4it", "pretrain.subset={fraction:0.1,classes:[1,4]}"
    ),
    "frozen": lambda: _dense("training.freeze=[output,'*.bias']"),
    "two processes": lambda: _dense("distributed.processes=2"),
    "masked and rewound": _ticket,
    "masked from the start": lambda: _ticket(first_step=0),
    "rate held": lambda: dataclasses.replace(_ticket(first_step=16), rate_held_from=15),
    "drawn anew": lambda: dataclasses.replace(_ticket(), start=Initial(11)),
    "signs kept": _kept_signs,
    "moved": _moved,
    "taught": _distilled,
    "taught by kept answers": lambda: _distilled(by_example=1000, temperature=1.0, ends=12, every=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_identities_stay_as_released(kind):
    """Also when told to another process, with its data and execution alone."""
    trajectory = KINDS[kind]()
    assert trajectory.identity == PINNED[kind]
    told = pickle.loads(pickle.dumps(trajectory.told))
    assert Trajectory(data=trajectory.data, execution=trajectory.execution, **told).identity == PINNED[kind]


if __name__ == "__main__":
    for kind, make in KINDS.items():
        print(f'    "{kind}": "{make().identity}",')
