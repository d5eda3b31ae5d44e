"""A round's network in forms that other programs read."""

from __future__ import annotations

import copy
import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from lth_cli.config.errors import RequestError
from lth_cli.experiments.opened import Step, model_of, state_at, step_number
from lth_cli.experiments.recorded import Recorded
from lth_cli.pruning.mask import Masks, count, total
from lth_cli.store.files import make_folder, remove_tree, temporary, writing


def export(recorded: Recorded, step: Step, form: str, path: Path) -> None:
    """Write the masked network of a round after a step.

    Args:
        recorded: the round.
        step: of its training.
        form: a key of `FORMS`.
        path: a file, or a folder for `huggingface`; nothing may be there yet.

    Raises:
        RequestError: something is there, the step is not, or a library is missing.
        WriteFailed: it cannot be written; nothing is left behind.
    """
    if path.exists() or path.is_symlink():
        raise RequestError(f"{path} exists already; name another or delete it")
    state = state_at(recorded, step)
    model = model_of(recorded, state, masked=True)
    masks = recorded.masks_of(state)
    with _whole(path) as partial:
        if form == "huggingface":
            _huggingface(recorded, step, model, masks, partial, path.name)
        elif form == "onnx":
            _onnx(recorded, model, partial)
        else:
            _FILES[form](model, masks, partial)


def pruned_form(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy of the model in the form of torch.nn.utils.prune: `weight_orig` and `weight_mask` for each mask."""
    model = copy.deepcopy(model)
    for name, mask in masks.items():
        where, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(where), parameter, mask)  # type: ignore[no-untyped-call]
    return model


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def _safetensors(model: nn.Module, masks: Masks, path: Path) -> None:
    marks = {f"mask.{name}": mask.contiguous() for name, mask in masks.items()}
    save_file({**_tensors(model), **marks}, path, {"format": "pt"})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:  # by a path torch would put its name into the file
        torch.save(tensors, file)


def _state_dict(model: nn.Module, masks: Masks, path: Path) -> None:
    _save(_tensors(model), path)


def _prune(model: nn.Module, masks: Masks, path: Path) -> None:
    _save(_tensors(pruned_form(model, masks)), path)


def _csr(model: nn.Module, masks: Masks, path: Path) -> None:
    """Matrices with a mask as sparse CSR tensors, all others as they are."""
    found = _tensors(model)
    with warnings.catch_warnings():  # torch calls all of its CSR tensors beta, once a process
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        for name in masks:
            if found[name].dim() == 2:
                found[name] = found[name].to_sparse_csr()
    _save(found, path)


def _onnx(recorded: Recorded, model: nn.Module, path: Path) -> None:
    try:
        import onnx  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise RequestError("--to onnx needs onnx and onnxscript: pip install 'lth-cli[onnx]'") from error
    data = recorded.plan.dense.data
    batch = next(iter(data.evaluation("test")))
    if "inputs" not in batch:
        raise RequestError("--to onnx is for networks that take one tensor of inputs")
    torch.onnx.export(
        model,
        (batch["inputs"][:2].cpu(),),
        path,
        input_names=["inputs"],
        output_names=["outputs"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def _huggingface(
    recorded: Recorded, step: Step, model: nn.Module, masks: Masks, folder: Path, title: str
) -> None:
    folder.mkdir()
    config: dict[str, Any] = {
        "library_name": "lth",
        "round": recorded.round.number,
        "control": recorded.branch,
        "step": step_number(recorded, step),
        "lth_config": recorded.run.config,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _safetensors(model, masks, folder / "model.safetensors")
    (folder / "README.md").write_text(_card(recorded, step, masks, title), encoding="utf-8")


def _card(recorded: Recorded, step: Step, masks: Masks, title: str) -> str:
    summary = recorded.round.summary
    command = shlex.join(map(str, recorded.run.info.get("command", ()))) or "not noted"
    rows = [
        f"| {split} {name} | {value:.6g} |"
        for split, found in summary["metrics"].items()
        for name, value in found.items()
        if isinstance(value, int | float)
    ]
    kept, size = count(masks), total(masks)
    share = f" ({100 * kept / size:.4g} %)" if size else ""
    return "\n".join(
        [
            "---",
            "library_name: lth",
            "tags: [lottery-ticket, pruning]",
            "---",
            f"# {title}",
            "",
            f"Round {recorded.round.number} of the run `{recorded.run.name}`, weights after step "
            f"{step_number(recorded, step)}; {kept:,} of {size:,} prunable weights kept{share}. "
            "Pruned weights are zero; `mask.NAME` is the mask of the tensor `NAME`.",
            "",
            f"Measured at the end of the round's training (step {recorded.end}):",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "To make it again:",
            "",
            "```",
            command,
            "```",
            "",
        ]
    )


_FILES: dict[str, Callable[[nn.Module, Masks, Path], None]] = {
    "safetensors": _safetensors,
    "state_dict": _state_dict,
    "prune": _prune,
    "csr": _csr,
}
FORMS = (*_FILES, "onnx", "huggingface")
"""What `export` writes."""


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside, renamed once everything is written; a kill leaves the real one as it was."""
    make_folder(path.parent)
    partial = temporary(path)
    try:
        with writing(path):
            yield partial
            partial.rename(path)
    finally:
        with suppress(OSError):
            if partial.is_dir():
                remove_tree(partial)
            else:
                partial.unlink(missing_ok=True)
