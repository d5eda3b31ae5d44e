"""Pruning by reconstruction against the authors' code (LOG-postech/rethinking-LLM-pruning) on a small random OPT.

Run: python benchmarks/against_reconstruction.py FOLDER [--double]

FOLDER is a checkout of that repository; it needs absl-py, and runs here without a GPU: calls of one are replaced, so
that its number formats and its gradient scaler are off. Both get the same texts, and the same order of them in every
round.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import made_on, write_result
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from lth_cli.analyses.reconstruction import blocks, study
from lth_cli.analyses.reconstruction.settings import Settings
from lth_cli.config.seeds import derive_seed

TEXTS, LENGTH, WORDS = 12, 16, 60
EPOCHS, BATCH, RATE = 3, 4, 1e-3


class Tupled(OPTDecoderLayer):  # type: ignore[misc]
    """A block as older releases of transformers have it."""

    def __init__(self, config: Any, layer_idx: int = 0) -> None:
        super().__init__(config, layer_idx=layer_idx)

    def forward(self, *given: Any, **named: Any) -> tuple[Any, ...]:
        """The activations, in a tuple."""
        found = super().forward(*given, **named)
        return found if isinstance(found, tuple) else (found,)


def main() -> None:
    """Compare every combination and write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--double", action="store_true", help="everything in float64")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(options.folder.resolve()))
    _without_gpu(double=options.double)
    lines = [
        f"# Pruning by reconstruction against the authors' code\n\n{made_on([0], 1)}",
        f"A random OPT of 4 blocks, width 32, {TEXTS} texts of {LENGTH} tokens, {EPOCHS} epochs in batches of {BATCH}, "
        f"rate {RATE:g}, {'float64' if options.double else 'float32'}. Own: texts that masks do not see. Weights are "
        "all of the blocks' tensors.\n",
        "| criterion | pattern | reconstruction | own | masks that differ | largest difference of a weight | "
        "error of the last block, theirs | ours |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for pattern in ("unstructured", "2:4", "4:8"):
        for method in ("magnitude", "wanda", "sparsegpt"):
            for how in ("none", "block", "global", "cross"):
                for own in (0, 4):
                    theirs, their_error = _theirs(method, how, pattern, own)
                    ours, our_error = _ours(method, how, pattern, own)
                    masks = sum(
                        int(((theirs[name] == 0) != (ours[name] == 0)).sum())
                        for name in ours
                        if ours[name].dim() == 2
                    )
                    far = max(float((theirs[name] - ours[name]).abs().max()) for name in ours)
                    lines.append(
                        f"| {method} | {pattern} | {how} | {own} | {masks} | {far:.1e} | {their_error:.6g} | "
                        f"{our_error:.6g} |"
                    )
    name = "against_reconstruction" + ("_float64" if options.double else "")
    write_result(name, "\n".join(lines) + "\n")


def _without_gpu(*, double: bool) -> None:
    kept: Any = lambda self, *_, **__: self  # noqa: E731
    vars(torch)["float32"] = torch.float64 if double else torch.float32
    torch.Tensor.cuda = kept  # type: ignore[method-assign]
    nn.Module.cuda = kept  # type: ignore[method-assign]
    torch.cuda.synchronize = lambda *_: None
    if double:
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        nn.Module.float = nn.Module.double  # type: ignore[method-assign]
    absent: Any = types.ModuleType("datasets")
    absent.load_dataset = None
    sys.modules["datasets"] = absent


def _texts() -> Tensor:
    return torch.randint(WORDS, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


def _network() -> nn.Module:
    """Weights that float16, in which the authors keep dense blocks, holds exactly."""
    config = OPTConfig(
        vocab_size=WORDS,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        ffn_dim=160,
        max_position_embeddings=64,
        use_cache=False,
        attn_implementation="eager",
    )
    generator = torch.Generator().manual_seed(0)
    model = OPTForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            norm = "norm" in name and name.endswith("weight")
            weight.copy_((1 + 0.2 * drawn if norm else 0.15 * drawn).half())
    model.__class__ = type("Network", (OPTForCausalLM,), {})
    return model.eval()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Of all blocks; the authors' masks aside."""
    return {
        f"{at}.{name}": weight.detach()
        for at, block in enumerate(blocks.blocks_of(model))
        for name, weight in block.named_parameters()
        if not name.endswith("mask")
    }


def _orders(number: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(derive_seed(0, "reconstruction.order", number + 1))
    while True:
        yield torch.randperm(TEXTS, generator=generator)


def _theirs(method: str, how: str, pattern: str, own: int) -> tuple[dict[str, Tensor], float]:
    from lib.opt import (
        finetune,  # type: ignore[import-not-found]
        prune,  # type: ignore[import-not-found]
    )

    model = _network()
    for block in blocks.blocks_of(model):
        block.__class__ = Tupled
    model.hf_device_map = {}  # type: ignore[assignment]
    rounds = iter(range(-1 if how == "cross" else 0, 4))
    errors: list[float] = []

    class Loader:
        """Batches of the texts, in stored order or in that of the round."""

        def __init__(self, data: Any, size: int, shuffle: bool, num_workers: int) -> None:
            self._data, self._size, self._shuffle = data, size, shuffle

        def get_loader(self) -> Any:
            order = _orders(next(rounds)) if self._shuffle else None
            return _Epochs(self._data, self._size, order)

    def measured(*given: Any, **named: Any) -> float:
        errors.append(finetune.val(*given, **named))
        return errors[-1]

    config = types.SimpleNamespace(
        nsamples=TEXTS - own, self_nsamples=own, seed=0, seqlen=LENGTH, prune_method=method, sparsity_ratio=0.5,
        use_fp32=True, infer_batch_size=1, learning_rate=RATE, weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.95,
        adam_eps=1e-8, max_grad_norm=1000.0, warmup_steps=0, batch_size=BATCH, epochs=EPOCHS, accumulation_steps=1,
        use_gp=how in ("global", "cross"), use_cr=how == "cross",
    )  # fmt: skip
    prune.get_loaders = lambda *_, **__: ([(text, None) for text in _texts().split(1)], None)
    finetune.TensorDataLoader = Loader
    prune.train = (lambda *_, **__: None) if how == "none" else finetune.train
    prune.val = measured
    kept, of = (0, 0) if pattern == "unstructured" else map(int, pattern.split(":"))
    prune.prune_model(config, model, None, torch.device("cpu"), kept, of)
    return _tensors(model), errors[-1]


class _Epochs:
    """Batches of an epoch each time it is gone through."""

    def __init__(self, data: Any, size: int, orders: Iterator[Tensor] | None) -> None:
        self._data, self._size, self._orders = data, size, orders

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self._data)) if self._orders is None else next(self._orders)
        for rows in order.split(self._size):
            yield self._data.data[rows], self._data.targets[rows]


def _ours(method: str, how: str, pattern: str, own: int) -> tuple[dict[str, Tensor], float]:
    model = _network()
    asked = Settings.model_validate(
        {"name": "reconstruction", "method": method, "reconstruction": how, "pattern": pattern,
         "samples": TEXTS - own, "generated": own, "epochs": EPOCHS, "batch_size": BATCH, "lr": RATE}
    )  # fmt: skip
    silent: Any = lambda *_, **__: None  # noqa: E731
    observer = types.SimpleNamespace(part_started=silent, part_finished=silent, message=silent)
    with tempfile.TemporaryDirectory() as folder:
        work: Any = types.SimpleNamespace(
            observer=observer, check_stop=silent, identity="", stored=types.SimpleNamespace(path=Path(folder))
        )
        made: Any = study._Reconstruction.__new__(study._Reconstruction)
        made._work, made._asked, made._blocks = work, asked, list(blocks.blocks_of(model))
        made._given, made._call = blocks.first_inputs(model, _texts())
        made._test, _ = blocks.first_inputs(model, _texts()[:2])
        made._dense_given, made._dense_test = made._given, made._test
        made._dense, made._masks = {0: copy.deepcopy(made._blocks[0])}, {}
        rows = made.run()
    return _tensors(model), float(rows[-1]["calibration_error"])


if __name__ == "__main__":
    main()
