"""How good is a causal language model after its blocks were pruned and reconstructed one by one?

One block is computed at a time, on activations of all calibration texts that are kept. What a block became is stored
as soon as it is done, so that a killed run repeats one block; activations are computed anew, to the same bytes.
"""

from __future__ import annotations

import copy
import functools
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lth_cli.analyses.reconstruction.blocks import (
    blocks_of,
    error,
    first_inputs,
    grams,
    linear_layers,
    passed,
    train,
    upright,
    written,
)
from lth_cli.analyses.reconstruction.pruners import pruned
from lth_cli.analyses.reconstruction.settings import Settings
from lth_cli.analyses.request import Answer, NamedState, Request, Study, circumstances, settings
from lth_cli.analyses.work import Work
from lth_cli.config.errors import RequestError
from lth_cli.config.seeds import derive_seed
from lth_cli.experiments.recorded import Recorded
from lth_cli.objectives.language import NextToken
from lth_cli.store.analyses import Row
from lth_cli.store.files import Damaged
from lth_cli.store.tensors import read_tensors, write_tensors
from lth_cli.training.evaluate import Metrics, drawn, evaluate
from lth_cli.training.restore import restore

_KIND = "block"
_NETWORK = "network.safetensors"


def prepare(request: Request, asked: Settings) -> Study:
    """Check the question. Raises RequestError."""
    if len(request.runs) > 1:
        raise RequestError("analysis=reconstruction is of one RUN")
    state = request.state(asked.state, request.runs[0])
    dense, name = state.recorded.plan.dense, state.recorded.run.name
    model = dense.recipe.build(init_seed=0)
    if not isinstance(dense.recipe.objective, NextToken) or not hasattr(model, "config"):
        raise RequestError(
            "analysis=reconstruction is of causal language models of transformers (model=gpt2, opt, llama with "
            f"objective=next_token); {name} is {state.recorded.plan.config.model.target} with "
            f"{state.recorded.plan.config.objective.target}"
        )
    for key, split, wanted in (
        ("samples", "train", asked.samples),
        ("test_samples", "test", asked.test_samples),
    ):
        if dense.data.sizes[split] < wanted:
            raise RequestError(
                f"analysis.{key}={wanted}: the {split} text of {name} is too short, it fills "
                f"{dense.data.sizes[split]} pieces of dataset.length"
            )
    blocks = blocks_of(model)
    if asked.pattern != "unstructured":
        of = int(asked.pattern.split(":")[1])
        for layer, module in linear_layers(blocks[0]).items():
            inputs = upright(module, cast(Tensor, module.weight)).shape[1]
            if inputs % of:
                raise RequestError(
                    f"analysis.pattern={asked.pattern}: {layer} has {inputs} inputs, no multiple of {of}"
                )
    subset = state.recorded.plan.config.evaluation.subset
    return Study(
        "reconstruction",
        request.runs[0],
        {
            **settings(asked, "state"),
            "state": state.identity,
            **circumstances(state.recorded),
            **({} if subset is None else {"evaluation_subset": subset}),
        },
        {"states": [state.label]},
        functools.partial(_answer, asked=asked, state=state),
        parts=len(blocks),
    )


def _answer(work: Work, *, asked: Settings, state: NamedState) -> Answer:
    recorded = state.recorded
    model = work.network(recorded)
    restore(model, work.state(recorded, state.step))
    before = work.once("dense", lambda: _known(state) or _evaluated(work, model, recorded))
    rows = _Reconstruction(work, asked, state, model).run()
    after = work.once("pruned", lambda: _evaluated(work, model, recorded))
    layers = [layer for block in blocks_of(model) for layer in linear_layers(block).values()]
    weights = [cast(Tensor, layer.weight) for layer in layers]
    density = sum(int(weight.count_nonzero()) for weight in weights) / sum(map(torch.numel, weights))
    write_tensors(work.stored.path / _NETWORK, "weights", dict(model.named_parameters()), {})
    for path in work.stored.path.glob(".block_*"):
        path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    on_device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    work.observer.message(
        f"peak memory {peak / 2**20:.0f} MiB"
        + (f", {on_device / 2**20:.0f} MiB of the GPU" if on_device else "")
    )
    summary = {
        "perplexity": after["perplexity"],
        "dense_perplexity": before["perplexity"],
        "density": density,
        "calibration_error": rows[-1]["calibration_error"],
        "test_error": rows[-1]["test_error"],
    }
    headline = [
        f"{asked.method}, reconstruction {asked.reconstruction}: perplexity {after['perplexity']:.2f} with "
        f"{density:.1%} of the blocks' weights, {before['perplexity']:.2f} dense; last block's error "
        f"{rows[-1]['calibration_error']:.3g} in calibration, {rows[-1]['test_error']:.3g} on test texts",
    ]
    return Answer({"blocks": rows, "network": [cast(Row, summary)]}, summary, headline)


def _known(state: NamedState) -> Metrics | None:
    """What the run measured of the dense network, where it did."""
    wanted = state.step, "test", state.recorded.plan.config.evaluation.subset
    for line in state.recorded.round.metrics():
        if (line["step"], line["split"], line.get("subset")) == wanted:
            return {name: line[name] for name in ("loss", "perplexity")}
    return None


def _evaluated(work: Work, model: nn.Module, recorded: Recorded) -> Metrics:
    """On the test texts that the run's `evaluation.subset` leaves, the same as there."""
    dense, subset = recorded.plan.dense, recorded.plan.config.evaluation.subset
    order = drawn(dense.data, "test", subset, dense.recipe.seeds["split"])
    return evaluate(
        model, dense.recipe.objective, dense.data, "test", dense.execution, work.should_stop, order
    )


class _Reconstruction:
    """Blocks pruned and trained one after another, and the activations between them."""

    def __init__(self, work: Work, asked: Settings, state: NamedState, model: nn.Module) -> None:
        self._work, self._asked = work, asked
        self._blocks = list(blocks_of(model))
        data, batch = state.recorded.plan.dense.data, asked.batch_size
        texts = {}
        for split, count in (("train", asked.samples), ("test", asked.test_samples)):
            order = drawn(data, split, count, derive_seed(asked.seed, "reconstruction", 0))
            texts[split] = torch.cat(
                [found["tokens"][:, :-1] for found in data.evaluation(split, order=order)]
            )
        if asked.generated:
            generator = torch.Generator().manual_seed(derive_seed(asked.seed, "reconstruction.generated"))
            size, length = data.spec.sizes["vocabulary"], texts["train"].shape[1]
            own = written(model, asked.generated, length, size, batch, generator)
            texts["train"] = torch.cat([texts["train"], own.to(texts["train"].device)])
        self._given, self._call = first_inputs(model, texts["train"])
        self._test, _ = first_inputs(model, texts["test"])
        self._dense_given, self._dense_test = self._given, self._test
        self._dense = {0: copy.deepcopy(self._blocks[0])}
        self._masks: dict[int, list[Tensor]] = {}

    def run(self) -> list[Row]:
        """All rounds; the errors of each block against the dense network on its own inputs."""
        cross = self._asked.reconstruction == "cross"
        last, rows = len(self._blocks) - 1, []
        for number in range(-1 if cross else 0, last + 1):
            self._work.observer.part_started(f"block {max(number, 0)} of {last}")
            unit = list(range(max(number, 0), min(number + cross, last) + 1))
            for at in unit:
                self._dense.setdefault(at, copy.deepcopy(self._blocks[at]))
            if not self._restored(number, unit):
                self._work.check_stop()
                self._prune_and_train(number, unit)
                self._store(number, unit)
            if number >= 0:
                rows.append(self._advance(number))
                self._work.observer.part_finished(f"error {rows[-1]['calibration_error']:.3g}")
        return rows

    def _prune_and_train(self, number: int, unit: list[int]) -> None:
        """Choose masks where there are none yet, and train the blocks of a round."""
        asked, batch = self._asked, self._asked.batch_size
        blocks = [self._blocks[at] for at in unit]
        # What the blocks answered before they were pruned: the aim of reconstruction by block.
        if asked.reconstruction == "block":
            targets = passed(self._call, blocks, self._given, batch)
        elif asked.reconstruction != "none":
            dense = [self._dense[at] for at in unit]
            targets = passed(self._call, dense, self._dense_given, batch)
        fresh = [at for at in unit if at not in self._masks]
        layers = [layer for at in fresh for layer in linear_layers(self._blocks[at]).values()]
        known = (
            [torch.empty(0)] * len(layers)
            if asked.method == "magnitude"
            else grams(self._call, blocks, layers, self._given[: asked.samples], batch)
        )
        with torch.no_grad():
            masks = []
            for layer, gram in zip(layers, known, strict=True):
                weight = cast(Tensor, layer.weight)
                left, mask = pruned(asked.method, upright(layer, weight), gram, asked.sparsity, asked.pattern)
                weight.copy_(upright(layer, left))
                masks.append(upright(layer, mask))
        for at in fresh:
            count = len(linear_layers(self._blocks[at]))
            self._masks[at], masks = masks[:count], masks[count:]
        if asked.reconstruction == "none":
            return
        held = [
            (layer, mask)
            for at in unit
            for layer, mask in zip(linear_layers(self._blocks[at]).values(), self._masks[at], strict=True)
        ]
        train(
            self._call,
            blocks,
            held,
            self._given,
            targets,
            self._orders(number),
            epochs=asked.epochs,
            batch=batch,
            lr=asked.lr,
            check=self._work.check_stop,
        )

    def _orders(self, number: int) -> Iterator[Tensor]:
        seed = derive_seed(self._asked.seed, "reconstruction.order", number + 1)
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randperm(len(self._given), generator=generator)

    def _advance(self, number: int) -> Row:
        """Past a block that is done: its errors, and the activations after it."""
        batch, done, dense = self._asked.batch_size, [self._blocks[number]], [self._dense.pop(number)]
        self._dense_given = passed(self._call, dense, self._dense_given, batch)
        self._dense_test = passed(self._call, dense, self._dense_test, batch)
        self._given = passed(self._call, done, self._given, batch)
        self._test = passed(self._call, done, self._test, batch)
        del self._masks[number]
        return {
            "block": number,
            "calibration_error": error(self._given, self._dense_given, batch),
            "test_error": error(self._test, self._dense_test, batch),
        }

    def _path(self, number: int) -> Path:
        return self._work.stored.path / f".block_{number + 1:04d}"

    def _store(self, number: int, unit: list[int]) -> None:
        tensors: dict[str, Tensor] = {}
        for at in unit:
            tensors |= {f"{at}/{name}": value for name, value in self._blocks[at].named_parameters()}
            tensors |= {f"{at}/mask/{place}": mask for place, mask in enumerate(self._masks[at])}
        about: dict[str, Any] = {"question": self._work.identity, "round": number}
        write_tensors(self._path(number), _KIND, tensors, about)

    def _restored(self, number: int, unit: list[int]) -> bool:
        """Whether a round was done before; then its blocks and masks are read."""
        path = self._path(number)
        if not path.exists():
            return False
        try:
            tensors, about = read_tensors(path, _KIND)
        except Damaged:
            return False
        if about.get("question") != self._work.identity:
            return False
        for at in unit:
            device = next(self._blocks[at].parameters()).device
            with torch.no_grad():
                for name, parameter in self._blocks[at].named_parameters():
                    parameter.copy_(tensors[f"{at}/{name}"])
            count = len(linear_layers(self._blocks[at]))
            self._masks[at] = [tensors[f"{at}/mask/{place}"].to(device) for place in range(count)]
        return True
