"""Real images, where they are at hand."""

import tarfile
from pathlib import Path

import pytest

from lth_cli.store.runs import Run

DATA = Path(__file__).parents[3] / "shared" / "data"
MNIST = DATA / "mnist"
CIFAR = DATA / "cifar10_images" / "cifar10_jpeg.tar.gz"


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no real MNIST at {MNIST}")
def test_one_epoch_of_mnist(lth, tmp_path):
    done = lth(
        "train",
        "dataset=mnist",
        f"data.root={MNIST}",
        "training.length=1ep",
        "training.batch_size=250",
        "evaluation.train=false",
        "device=cpu",
        "threads=1",
        "name=mnist",
    )
    assert done.code == 0, done.err
    (row,) = Run.open(tmp_path / "runs" / "mnist").results()
    assert row["steps_trained"] == 240
    assert row["test_accuracy"] > 0.9


@pytest.fixture
def some_images(tmp_path):
    """The first 40 training and 10 test images of every class, in an archive like the whole one."""
    seen: dict[str, int] = {}
    with (
        tarfile.open(CIFAR) as whole,
        tarfile.open(tmp_path / "some.tar.gz", "w:gz", compresslevel=1) as part,
    ):
        for member in whole:
            folder = member.name.rpartition("/")[0]
            seen[folder] = seen.get(folder, 0) + 1
            if member.isfile() and seen[folder] <= (40 if folder.startswith("train") else 10):
                part.addfile(member, whole.extractfile(member))
    return tmp_path / "some.tar.gz"


@pytest.mark.skipif(not CIFAR.is_file(), reason=f"no CIFAR-10 images at {CIFAR}")
def test_resnet_on_an_archive_of_cifar10_images(lth, tmp_path, some_images):
    def train(name):
        return lth(
            "train",
            "dataset=cifar10_images",
            f"dataset.path={some_images}",
            "model=resnet20",
            "optimizer=sgd",
            "optimizer.lr=0.01",
            "training.length=20it",
            "training.batch_size=32",
            "evaluation.every=1ep",
            "device=cpu",
            "threads=1",
            f"name={name}",
        )

    done = train("cifar")
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "runs" / "cifar")
    (row,) = run.results()
    assert row["steps_trained"] == 20
    losses = [line["loss"] for line in run.round(0).metrics() if line["split"] == "test"]
    assert losses[-1] < losses[0], "it learns"
    assert sum(weight.numel() for weight in run.round(0).checkpoint(20).weights.values()) == 272_474
    again = train("again")
    assert again.code == 0, again.err
    reused = Run.open(tmp_path / "runs" / "again").results()[0]["steps_reused"]
    assert reused == 20, "the cached images are the same data"
