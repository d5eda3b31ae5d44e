"""One training in two processes: as in one, resumed to the byte, and ended together whatever happens to one of them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.data.batches import epoch_order
from lth_cli.experiments.plan import make_plan
from lth_cli.store.masks import load_mask
from lth_cli.store.runs import Run
from lth_cli.store.states import load_state
from lth_cli.training.loop import initial_state
from lth_cli.training.parallel import ParallelTrainer, RanksDiffer
from lth_cli.training.precision import Execution

LTH = (sys.executable, "-c", "from lth_cli.cli.main import main; main()")
# 1,437 examples in batches of 718: the last batch of an epoch is one example, which two processes cannot share.
UNEVEN = ("training.batch_size=718", "training.length=10ep")
DIGITS = (
    "device=cpu",
    "threads=1",
    "model.hidden=[100,40]",
    "optimizer=sgd",
    "optimizer.momentum=0",
    "optimizer.lr=0.05",
    "pruning.rounds=3",
    "rewind.to=3it",
    "checkpoint.every=2it",
)
TWO = "distributed.processes=2"


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LTH_RUNS_DIR": str(folder / "runs")}
    # Of its own session, as a shell's job is: nothing it does to its process group reaches the tests.
    return subprocess.Popen(
        [*LTH, *arguments],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return err


def lth(folder: Path, *arguments: str, code: int = 0, **variables: str) -> str:
    return finish(start(folder, *arguments, **variables), code)


def followers(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the other ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"lth_cli.experiments.follower" in _command(pid)]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(true, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def training(folder: Path, process: subprocess.Popen[str]) -> int:
    """Wait until a state has been stored since now; returns the other rank's process id."""
    since = time.time_ns()
    store = folder / "runs" / ".store"

    def stored() -> bool:
        assert process.poll() is None, process.communicate()
        return any(path.stat().st_mtime_ns > since for path in store.glob("*/resume.safetensors"))

    wait_until(stored)
    return followers(process)[0]


def checkpoints(run: Path) -> dict[str, bytes]:
    files = [*run.glob("round_*/checkpoints/*"), *run.glob("round_*/mask.safetensors")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def scores(run: Path) -> list[tuple[float | int | None, ...]]:
    rows = Run.open(run).results()
    return [(row["density"], row["test_loss"], row["test_accuracy"], row["train_loss"]) for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in) -> Path:
    """Holds `one` and `two`: the same run in one process and in two."""
    folder = tmp_path_factory.mktemp("ranks")
    two = start(folder, "prune", "-q", *DIGITS, *UNEVEN, TWO, "name=two")
    assert lth_in(folder, "prune", "-q", *DIGITS, *UNEVEN, "name=one").err == ""
    assert finish(two) == ""
    return folder / "runs"


def test_teachers_of_two_processes(folder):
    """Each asks them about its own part; they come to the other with the first command, as the rate held does."""
    kd = (
        "distillation=kd",
        "distillation.teachers=[one:0,dense]",
        "distillation.sample=1",
        "distillation.every=2",
    )
    short = ("pruning.rounds=1", "training.length=4ep", "schedule=linear", "rewind.technique=fine_tune")
    for name, count in (("student", ()), ("students", (TWO,))):
        lth(folder.parent, "prune", "-q", *DIGITS, *UNEVEN, *kd, *short, *count, f"name={name}")
    for left, right in zip(scores(folder / "student"), scores(folder / "students"), strict=True):
        assert left == pytest.approx(right, rel=1e-5)
    summary = Run.open(folder / "students").round(1).summary
    assert len(summary["description"]["objective"]["distillation"]["teachers"]) == 2
    refused = lth(folder.parent, "prune", *DIGITS, TWO, *kd[:2], "distillation.cache=true", code=2)
    assert "not with distributed.processes above 1" in refused


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rigl", ("update=sam", "sparse_training=rigl", "sparse_training.every=3it")),
        ("popup", ("sparse_training=edge_popup",)),
    ],
)
def test_two_processes_change_masks_alike_and_sharpen_the_whole_batch(name, kind, folder, tmp_path):
    """One dense gradient and one e for both, made of the whole batch; the second start goes on from a resume point."""
    asked = (*kind, "training.length=6ep")
    train = (
        "train",
        "-q",
        *(key for key in DIGITS if not key.startswith(("pruning", "rewind"))),
        *UNEVEN,
        *asked,
    )
    process = start(folder.parent, *train, TWO, f"name={name}-2")
    training(folder.parent, process)
    process.kill()
    process.communicate()
    for run, count in ((f"{name}-1", ()), (f"{name}-2", (TWO,))):
        lth(folder.parent, *train, *count, f"name={run}")
    lth(tmp_path, *train, TWO, "name=straight")
    one, two = (folder / f"{name}-{count}" for count in (1, 2))
    assert checkpoints(two) == checkpoints(tmp_path / "runs" / "straight")
    masks = [Run.open(run).round(0).masks() for run in (one, two)]
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())
    for left, right in zip(scores(one), scores(two), strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_two_processes_train_what_one_does(folder):
    for number in range(4):
        one, two = folder / "one" / f"round_{number:02}", folder / "two" / f"round_{number:02}"
        masks = load_mask(one / "mask.safetensors"), load_mask(two / "mask.safetensors")
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
        for path in sorted((one / "checkpoints").iterdir()):
            left, right = load_state(path), load_state(two / "checkpoints" / path.name)
            for name, weights in left.weights.items():
                assert (weights - right.weights[name]).norm() <= 1e-5 * weights.norm()
    for left, right in zip(scores(folder / "one"), scores(folder / "two"), strict=True):
        assert left == pytest.approx(right, rel=1e-5)


def test_they_are_another_trajectory_with_another_name_for_it(folder):
    one, two = (Run.open(folder / name).round(0).summary["description"] for name in ("one", "two"))
    assert two["execution"] == {**one["execution"], "processes": 2, "batch_norm": "local"}
    assert {**two, "execution": None} == {**one, "execution": None}


def test_killed_and_resumed_is_uninterrupted(folder, tmp_path):
    """First the other rank is killed, then all are, then rank 0 gets a signal; the same command ends the work."""
    command = ("prune", "-q", *DIGITS, *UNEVEN, TWO, "name=run")
    process = start(tmp_path, *command)
    os.kill(training(tmp_path, process), signal.SIGKILL)
    cause, advice = finish(process, 1).split("; ")
    assert cause == "lth: rank 1 was ended by SIGKILL"
    assert advice == "the same command goes on from the last stored state\n"
    run = Run.open(tmp_path / "runs" / "run")
    assert run.info["state"] == "failed"

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start(tmp_path, *command, TMPDIR=str(scratch))
    other = training(tmp_path, process)
    process.kill()
    finish(process, -signal.SIGKILL)
    wait_until(lambda: not running(other), 20)  # nobody kills it: it notices
    assert not list(scratch.iterdir())
    assert run.effective_state == "interrupted"

    process = start(tmp_path, *command)
    training(tmp_path, process)
    process.terminate()
    assert "stopped at step" in finish(process, 143)
    assert run.info["state"] == "interrupted"

    assert lth(tmp_path, *command) == ""
    assert checkpoints(run.path) == checkpoints(folder / "two")
    assert scores(run.path) == scores(folder / "two")


def test_torchrun(folder, tmp_path):
    """The same bytes; and a sweep's points follow each other."""
    launcher = ("--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")
    program = tmp_path / "lth"
    program.write_text(f"#!{sys.executable}\n{LTH[2]}\n")
    program.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *launcher,
        "--local-addr=127.0.0.1",
        "--no-python",
    ]
    done = subprocess.run(
        [*command, str(program), "prune", "-q", "-m", *DIGITS, *UNEVEN, "name=run", "seed=0,1"],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "LTH_RUNS_DIR": str(tmp_path / "runs"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "bind" in done.stderr.lower() and done.returncode:
        pytest.skip(f"no port of the loopback interface can be bound here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Stored in") == 2  # rank 0 alone speaks
    assert checkpoints(tmp_path / "runs" / "run-seed_0") == checkpoints(folder / "two")


def test_starts_and_ends(tmp_path):
    """Each point of a sweep has processes of its own; one that diverges, on all ranks alike, ends only its own."""
    sweep = ("-m", "optimizer.lr=0.1,1e30,0.2", "training.length=4it", "name=run", TWO)
    assert lth(tmp_path, "train", "-q", *DIGITS[:4], *sweep, code=1) == "lth: 1 of 3 points failed\n"
    runs = [Run.open(path).info for path in sorted((tmp_path / "runs").glob("run-*"))]
    assert [info["state"] for info in runs] == ["finished", "finished", "failed"]
    assert runs[2]["error"].startswith("training diverged: the loss is not finite at step 1")


def test_synchronised_batch_norm_trains_what_one_process_does(tmp_path, lth_in):
    settings = (
        *DIGITS[:2],
        "model=resnet20",
        "model.depth=8",
        "model.width=4",
        "optimizer=sgd",
        "optimizer.lr=1e-3",
        "training.length=3it",
        "training.batch_size=64",
        "evaluation.train=false",
    )
    two = start(tmp_path, "train", "-q", *settings, TWO, "distributed.batch_norm=synchronized", "name=two")
    assert lth_in(tmp_path, "train", "-q", *settings, "name=one").err == ""
    assert finish(two) == ""
    one, two = (
        load_state(tmp_path / "runs" / name / "round_00/checkpoints/step_00000003.safetensors")
        for name in ("one", "two")
    )
    for kind in ("weights", "buffers"):
        for name, tensor in getattr(one, kind).items():
            torch.testing.assert_close(getattr(two, kind)[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """The layout of ImageNet with two classes of tiny images."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(noise.integers(0, 256, (36, 40, 3), dtype=np.uint8))
                image.save(folder / f"{number}.JPEG")
    return tmp_path


def test_resnet50_on_imagenet_from_end_to_end(imagenet):
    settings = (
        *DIGITS[:2],
        "model=resnet50",
        "dataset=imagenet",
        "experiment=lmc_resnet50_imagenet",
        f"data.root={imagenet}",
        "data.workers=1",
        "dataset.size=32",
        "training.batch_size=8",
        "training.length=6ep",
        "optimizer.lr=1e-4",
        "evaluation.every=6ep",
        "checkpoint.every=10min",
    )
    assert lth(imagenet, "train", "-q", *settings, TWO, "name=run") == ""
    summary = Run.open(imagenet / "runs" / "run").round(0).summary
    assert summary["end_step"] == 6
    assert summary["metrics"].keys() == {"train", "test"}


def test_an_image_that_only_another_rank_decodes_is_named(imagenet):
    last = int(epoch_order(8, 0, 0, True)[-1])
    damaged = sorted((imagenet / "imagenet" / "train").rglob("*.JPEG"))[last]
    damaged.write_bytes(b"no image")
    data = ("dataset=imagenet", "dataset.size=16", f"data.root={imagenet}", "data.workers=1")
    settings = (*DIGITS[:3], *data, "training.batch_size=8", "training.length=2ep", TWO, "name=run")
    message = lth(imagenet, "train", "-q", *settings, code=1)
    assert message.startswith(f"lth: rank 1: the image {damaged} cannot be decoded")
    assert len(message.splitlines()) == 1


class Alone:
    """Stands for ranks of which the other one has other digests."""

    rank, size, device = 0, 2, torch.device("cpu")

    def __init__(self, changed: str) -> None:
        self._changed = changed

    def gather(self, value):
        return [value, {**value, self._changed: "other"}]


@pytest.mark.parametrize("changed", ["masks", "settings", "weights", "data", "order", "augmentation"])
def test_ranks_that_differ_are_named(changed):
    dense = make_plan(load("prune", ["device=cpu", "threads=1"]).config).dense
    with pytest.raises(RanksDiffer, match=f"rank 1 does not train the same as rank 0: other {changed}"):
        ParallelTrainer(dense, initial_state(dense, 0), Alone(changed))


@pytest.mark.parametrize(
    ("overrides", "variables", "message"),
    [
        (["training.batch_size=2", "distributed.processes=3"], {}, "cannot share batches"),
        (["distributed.processes=3"], {"RANK": "0", "WORLD_SIZE": "2"}, "torchrun started 2"),
        (["distributed.processes=0"], {}, "greater than or equal to 1"),
        ([TWO, "device=cuda"], {}, "there is no cuda|need a GPU each"),
    ],
)
def test_wrong_requests(overrides, variables, message, monkeypatch):
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        make_plan(load("prune", overrides).config)


def test_one_process_keeps_its_identity():
    cpu = Execution(torch.device("cpu"), 1, "fp32", True)
    assert cpu.identity.keys() == {"device", "threads", "dtype", "channels_last"}
    assert dataclasses.replace(cpu, batch_norm="synchronized").identity == cpu.identity


def test_threads_are_shared_out():
    several = make_plan(
        load("prune", ["device=cpu", "distributed.processes=64", "training.batch_size=64"]).config
    )
    assert several.config.threads == max(1, len(os.sched_getaffinity(0)) // 64)
    make_plan(load("prune", ["device=cpu", "threads=1"]).config)  # the tests go on with one
