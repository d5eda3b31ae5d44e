"""Curvature against the Hessian written out, ResNet-20's in products and seconds, and what interpolating costs.

Run: python benchmarks/curvature.py --images FOLDER_OR_ARCHIVE [--examples 100] [--repeats 5] [--threads 1]

(a) A small network on digits, in float64: eigenvalues, trace, diagonal and the bound on the prunable fraction from
products with vectors, against the same from the Hessian written out by torch.func.
(b) ResNet-20 after a short training on CIFAR-10 images: top-10 eigenvalues.
(c) 30 points on a line against 30 bare evaluations: each point is followed by an evaluation of the model left where it
is, so that both meet the same load; batches are in memory. Ratios are of sums over the 30; and the memory of the move.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import lth, made_on, write_result
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lth_cli.analyses.curvature import spectrum
from lth_cli.analyses.curvature.hessian import Examples, Hessian
from lth_cli.analyses.landscape.plane import Combination
from lth_cli.analyses.line import Line, positions
from lth_cli.config import schema
from lth_cli.data.batches import Batch, labelled
from lth_cli.experiments.recorded import Recorded, open_round
from lth_cli.models.mlp import MLP
from lth_cli.models.resnet import ResNet
from lth_cli.objectives.classification import Classification
from lth_cli.store.runs import Run
from lth_cli.store.states import State
from lth_cli.training.evaluate import tally
from lth_cli.training.precision import Execution

POINTS = 30
OBJECTIVE = Classification()
RISE = 0.01


class _Here:
    """This machine, to a run that lies on it."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.runs_dir, self.device, self.threads = str(folder), "cpu", threads
        self.data = schema.DataPlace()


def main() -> None:
    """Measure all three and write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="dataset.path of dataset=cifar10_images")
    parser.add_argument("--examples", type=int, default=100, help="for the eigenvalues of ResNet-20")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="lth-curvature-") as name:
        folder = Path(name)
        sections = [
            f"# Curvature and interpolation\n\n{made_on([0], options.threads)}",
            _exactness(folder, options.threads),
            _resnet(folder, options.images, options.examples, options.threads),
            _interpolation(options.repeats, options.threads),
        ]
    write_result("curvature", "\n".join(sections))


def _trained(folder: Path, threads: int, *arguments: str) -> tuple[Recorded, nn.Module]:
    """A dense training of lth, and its network at the end."""
    lth("train", f"threads={threads}", "device=cpu", "name=run", "-q", *arguments, runs_dir=folder)
    recorded = open_round(Run.open(folder / "run"), 0, _Here(folder, threads))
    dense = recorded.plan.dense
    model = dense.recipe.build(init_seed=0)
    state = recorded.round.checkpoint(recorded.end)
    model.load_state_dict({**state.weights, **state.buffers})
    return recorded, model.eval()


def _exactness(folder: Path, threads: int) -> str:
    settings = (
        "dataset=digits",
        "model=mlp",
        "model.hidden=[12,12]",
        "training.length=10ep",
        "optimizer.lr=2e-3",
    )
    recorded, model = _trained(folder / "exact", threads, *settings)
    model.double()
    inputs, labels = (
        torch.cat(parts)
        for parts in zip(*labelled(recorded.plan.dense.data.evaluation("train")), strict=True)
    )
    hessian = Hessian(model, OBJECTIVE, lambda: [{"inputs": inputs, "labels": labels}], recorded.masks)
    exact = _written_out(model, list(recorded.masks), inputs.double(), labels)
    values = torch.linalg.eigvalsh(exact).flip(0)
    found = spectrum.largest_eigenvalues(hessian, 10, tolerance=1e-6, seed=0)
    errors = [abs(ours / float(theirs) - 1) for ours, theirs in zip(found, values[:10], strict=True)]
    found_in = hessian.products
    columns = torch.stack([hessian.product(row) for row in torch.eye(hessian.size, dtype=torch.float64)])
    trace, diagonal = float(exact.trace()), exact.diagonal()
    whole = float((columns - exact).norm() / exact.norm())
    own = (columns.diagonal() - diagonal).norm() / diagonal.norm()
    lines = [
        f"## Against the Hessian written out\n\n`lth train {' '.join(settings)}`: {hessian.size:,} prunable weights, "
        f"{len(labels):,} training examples, float64.\n",
        f"Ten largest eigenvalues ({float(values[0]):.4g} to {float(values[9]):.4g}): largest relative error "
        f"**{max(errors):.1e}**, in {found_in} products.\n",
        f"A product for every column: relative error of the matrix **{whole:.1e}** (Frobenius), of its trace "
        f"**{abs(float(columns.trace()) / trace - 1):.1e}**, of its diagonal **{float(own):.1e}** (L2).\n",
        "Hutchinson, over all its probes. Deviation: of the trace, in standard errors stated. Within two: share of the "
        "diagonal's entries nearer to the exact one than two standard errors stated (0.954 wanted).\n",
        "| probes | relative error, trace | stated | deviation | relative error, diagonal (L2) | within two |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for probes in (100, 1000, 10_000):
        guess = spectrum.hutchinson(hessian, probes, seed=0)
        off = guess.mean - diagonal
        lines.append(
            f"| {probes:,} | {abs(guess.trace.value / trace - 1):.1e} | {guess.trace.error / trace:.1e} | "
            f"{(guess.trace.value - trace) / guess.trace.error:+.2f} | {float(off.norm() / diagonal.norm()):.1e} | "
            f"{float((off.abs() <= 2 * guess.error).double().mean()):.3f} |"
        )
    density = spectrum.spectral_density(hessian, 10, 80, seed=0)
    state = recorded.round.checkpoint(recorded.end)
    weights = torch.cat([state.weights[name].flatten() for name in recorded.masks]).abs().sort().values
    removed = float(weights[: len(weights) // 5].norm())
    bound = density.mean_of(lambda nodes: spectrum.prunable(nodes, RISE, removed))
    wanted = float(spectrum.prunable(values, RISE, removed).mean())
    lines.append(
        f"\nBound on the fraction prunable at once (R of the smallest fifth of the weights, rise {RISE}; density of 10 "
        f"probes x 80 steps): {bound.value:.5f} ± {bound.error:.5f}, exactly {wanted:.5f}: "
        f"{(bound.value - wanted) / bound.error:+.2f} standard errors.\n"
    )
    return "\n".join(lines)


def _written_out(model: nn.Module, names: list[str], inputs: Tensor, labels: Tensor) -> Tensor:
    held = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [held[name].numel() for name in names])
        live = {name: part.view(held[name].shape) for name, part in zip(names, parts, strict=True)}
        return functional.cross_entropy(functional_call(model, {**held, **live}, (inputs,)), labels)

    return torch.func.hessian(loss)(torch.cat([held[name].flatten() for name in names]))


def _resnet(folder: Path, images: Path, examples: int, threads: int) -> str:
    settings = (
        "dataset=cifar10_images",
        "model=resnet20",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "training.batch_size=128",
        "training.length=100it",
        "dataset.subset.fraction=0.1",
        "evaluation.train=false",
    )
    recorded, model = _trained(folder / "resnet", threads, *settings, f"dataset.path={images.resolve()}")
    inputs, labels = next(labelled(recorded.plan.dense.data.evaluation("train")))
    batches = _batches(inputs[:examples], labels[:examples], 100)
    accuracy = recorded.round.summary["metrics"]["test"]["accuracy"]
    lines = [
        f"## ResNet-20, top-10 eigenvalues\n\n`lth train {' '.join(settings)}` (test accuracy {100 * accuracy:.1f} %); "
        f"{examples} training images in batches of 100.\n",
        "| dtype | tolerance | weights | products | seconds | seconds a product | largest | tenth |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for tolerance in (1e-2, 1e-4):
        hessian = Hessian(model, OBJECTIVE, _same(batches), recorded.masks)
        before = time.perf_counter()
        values = spectrum.largest_eigenvalues(hessian, 10, tolerance=tolerance, seed=0)
        seconds = time.perf_counter() - before
        lines.append(
            f"| float32 | {tolerance:g} | {hessian.size:,} | **{hessian.products}** | {seconds:.0f} | "
            f"{seconds / hessian.products:.2f} | {values[0]:.5g} | {values[-1]:.5g} |"
        )
    return "\n".join(lines) + "\n"


def _batches(inputs: Tensor, labels: Tensor, size: int) -> list[Batch]:
    parts = zip(inputs.split(size), labels.split(size), strict=True)
    return [{"inputs": some, "labels": classes} for some, classes in parts]


def _same(batches: list[Batch]) -> Examples:
    return lambda: batches


def _interpolation(repeats: int, threads: int) -> str:
    execution = Execution(torch.device("cpu"), threads, "fp32", channels_last=False)
    lines = [
        f"## {POINTS} points on a line against {POINTS} bare evaluations\n",
        f"Random images in memory; medians of {repeats} repeats with least and most. Copies: bytes of all tensors that "
        "came to be with model, states and line (plane), as the garbage collector finds them at every point, in bytes "
        "of the model. Allocated: by a move, as torch's profiler counts.\n",
        "| network | images | bare, s | interpolated, s | ratio of times | ratio of CPU times | copies, line | "
        "copies, plane of 3 | allocated, bytes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, make, shape, images in (
        ("LeNet-300-100", functools.partial(MLP, hidden=[300, 100]), (1, 28, 28), 10_000),
        ("ResNet-20", functools.partial(ResNet, depth=20), (3, 32, 32), 100),
    ):
        network = functools.partial(make, input_shape=shape, classes=10)
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(images, *shape, generator=generator)
        labels = torch.randint(10, (images,), generator=generator)
        batches = _batches(inputs, labels, 1000)
        line, model, copies = _held(network, 2, Line)
        _, _, copies_of_plane = _held(network, 3, _Plane)
        _alternated(line, model, batches, execution)  # warms up
        timed = [_alternated(line, model, batches, execution) for _ in range(repeats)]
        walls, works = ([own[kind] for own in timed] for kind in (0, 1))
        lines.append(
            f"| {name} | {images:,} | {statistics.median(bare for bare, _ in walls):.2f} | "
            f"{statistics.median(moved for _, moved in walls):.2f} | {_ratios(walls)} | {_ratios(works)} | "
            f"{copies:.2f} | {copies_of_plane:.2f} | {_allocated(line)} |"
        )
    return "\n".join(lines) + "\n"


def _ratios(pairs: list[tuple[float, float]]) -> str:
    ratios = sorted(moved / bare for bare, moved in pairs)
    return f"**{statistics.median(ratios):.3f}** ({ratios[0]:.3f} to {ratios[-1]:.3f})"


def _alternated(
    line: Line, model: nn.Module, batches: list[Batch], execution: Execution
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds by the clock, and of this process's work, of all bare evaluations and of all points."""
    bare, moved = [0.0, 0.0], [0.0, 0.0]
    for position in positions(POINTS):
        for spent in (bare, moved):
            clock, work = time.perf_counter(), time.process_time()
            if spent is moved:
                line.move(position)
            tally(model, OBJECTIVE, batches, execution)
            spent[0] += time.perf_counter() - clock
            spent[1] += time.process_time() - work
    return (bare[0], moved[0]), (bare[1], moved[1])


class _Plane(Combination):
    """Moved like a line, for the same measurement."""

    def __init__(self, model: nn.Module, *states: State) -> None:
        super().__init__(model, states)


def _held(
    make: Callable[[], nn.Module], count: int, mover: Callable[..., Line | Combination]
) -> tuple[Line | Combination, nn.Module, float]:
    """A mover, its model, and the bytes of tensors that both and the states hold, in bytes of the model."""
    before = sum(_storages().values())
    model = make().eval()
    own = sum(_storages().values()) - before
    states = []
    for _ in range(count):
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        states.append(State(0, weights, {name: buffer.clone() for name, buffer in model.named_buffers()}))
    moved = mover(model, *states)
    most = 0
    for position in positions(POINTS):
        moved.move(
            position if isinstance(moved, Line) else [1.0 - position, *[position / (count - 1)] * (count - 1)]
        )
        most = max(most, sum(_storages().values()) - before)
    return moved, model, most / own


def _storages() -> dict[int, int]:
    """Bytes of every storage of a tensor that is alive."""
    gc.collect()
    return dict(_alive())


def _alive() -> Iterator[tuple[int, int]]:
    for found in gc.get_objects():
        if issubclass(type(found), Tensor):  # isinstance would ask every object for its class
            storage = found.untyped_storage()
            yield storage.data_ptr(), storage.nbytes()


def _allocated(line: Line) -> int:
    """Bytes that one move allocates."""
    with torch.profiler.profile(profile_memory=True) as profiled:
        line.move(0.5)
    return sum(max(0, event.self_cpu_memory_usage) for event in profiled.key_averages())


if __name__ == "__main__":
    main()
