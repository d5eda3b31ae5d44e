"""Pruning of language models by block: masks by definition, every reconstruction through the command, kills."""

import contextlib
import csv
import json

import pytest
import torch

from lth_cli.analyses.reconstruction import study
from lth_cli.analyses.reconstruction.blocks import train
from lth_cli.analyses.reconstruction.pruners import pruned

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'lth-cli[language]'")


@pytest.fixture
def text(tmp_path):
    """A tokenizer of a few words and a text, as overrides."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (tmp_path / "text.txt").write_text("\n".join([*"abcdefghijacegibdfhj"] * 20))
    return (
        "dataset=running_text",
        "dataset.pieces=next",
        "dataset.length=8",
        f"dataset.tokenizer={tmp_path}",
        f"dataset.path={tmp_path / 'text.txt'}",
        "objective=next_token",
        "device=cpu",
        "threads=1",
        "optimizer=adamw",
        "optimizer.lr=3e-3",
        "training.batch_size=8",
        "training.length=2ep",
        "name=a",
    )


SMALL = ("model.width=16", "model.depth=3", "model.heads=2", "model.positions=16")
ASK = (
    "analysis=reconstruction",
    "analysis.state=0@end",
    "analysis.samples=16",
    "analysis.test_samples=4",
    "analysis.epochs=8",
    "analysis.lr=3e-3",
)


def sizes(family):
    own = {"gpt2": (), "opt": ("model.hidden=32",), "llama": ("model.hidden=32", "model.key_heads=1")}
    return (f"model={family}", *SMALL, *own[family])


def found(runs):
    """Errors by block and content of the network's file, by what was asked."""
    answers = {}
    for file in runs.glob("*/analysis/reconstruction-*/result.json"):
        with (file.parent / "blocks.csv").open() as opened:
            rows = [float(row["calibration_error"]) for row in csv.DictReader(opened)]
        answers[file.parent.name] = rows, (file.parent / "network.safetensors").read_bytes()
    return answers


def test_masks_by_definition():
    weight = torch.tensor([[1.0, -2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    gram = torch.diag(torch.tensor([100.0, 1.0, 1.0, 0.01]))
    wanda = pruned("wanda", weight, gram, 0.5, "unstructured")[1]
    assert wanda.tolist() == [[True, False, True, False], [True, True, False, False]]
    assert pruned("wanda", weight, gram, 0.5, "2:4")[1].tolist() == wanda.tolist()
    ties = pruned("magnitude", torch.tensor([[1.0, -1.0, 1.0, 1.0]]), gram, 0.5, "2:4")[1]
    assert ties.tolist() == [[True, True, False, False]]
    magnitude = pruned("magnitude", weight, gram, 0.25, "unstructured")[1]
    assert magnitude.tolist() == [[False, False, True, True], [True, True, False, False]]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4:8"])
def test_sparsegpt_corrects_what_is_left(pattern):
    """Correlated inputs: its layer is nearer to the dense one than with the same weights merely left out."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=draw) @ torch.randn(8, 32, generator=draw)
    x += 0.1 * torch.randn(400, 32, generator=draw)
    weight = torch.randn(16, 32, generator=draw)
    left, mask = pruned("sparsegpt", weight, x.T @ x, 0.5, pattern)
    assert not left[~mask].any()
    assert ((x @ (left - weight).T).square().sum()) < 0.5 * (x @ (weight * mask - weight).T).square().sum()
    if pattern != "unstructured":
        kept, of = map(int, pattern.split(":"))
        assert (mask.unflatten(1, (-1, of)).sum(2) == kept).all()


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_reconstruction_lowers_the_error(lth, tmp_path, text, family):
    assert lth("train", *text, *sizes(family)).code == 0
    last = {}
    for how in ("none", "block", "global", "cross"):
        done = lth("analyze", "a", *ASK, f"analysis.reconstruction={how}", "--json", "-q")
        assert done.code == 0, done.err
        summary = json.loads(done.out)["summary"]
        last[how] = summary["calibration_error"]
        assert summary["density"] == pytest.approx(0.5)
    assert last["block"] < last["none"] and last["global"] < last["none"] and last["cross"] < last["none"]


def test_perplexity_is_of_the_texts_that_the_run_evaluates(lth, tmp_path, text):
    """By the run at its end, and by the analysis after it pruned next to nothing."""
    assert lth("train", *text, *sizes("opt"), "evaluation.subset=3").code == 0
    lines = map(json.loads, (tmp_path / "runs/a/round_00/metrics.jsonl").read_text().splitlines())
    at_end = [line for line in lines if line["split"] == "test"][-1]
    done = lth("analyze", "a", *ASK, "analysis.reconstruction=none", "analysis.sparsity=1e-9", "--json", "-q")
    answer = json.loads(done.out)
    assert answer["summary"]["dense_perplexity"] == at_end["perplexity"]
    assert answer["summary"]["perplexity"] == pytest.approx(at_end["perplexity"], rel=1e-3)
    (network,) = answer["tables"]["network"]
    assert network == answer["summary"]


@pytest.mark.parametrize("how", ["block", "cross"])
def test_a_kill_changes_nothing(lth, tmp_path, text, monkeypatch, how):
    assert lth("train", *text, *sizes("llama")).code == 0
    ask = (*ASK, f"analysis.reconstruction={how}", "analysis.generated=6")
    assert lth("analyze", "a", *ask).code == 0
    (whole,) = found(tmp_path / "runs").values()
    for folder in (tmp_path / "runs").glob("*/analysis"):
        folder.rename(tmp_path / "whole")
    store, calls = study._Reconstruction._store, []

    def dies(self, number, unit):
        store(self, number, unit)
        calls.append(number)
        if len(calls) == 2:
            raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(study._Reconstruction, "_store", dies)
        with contextlib.suppress(RuntimeError):
            killed = lth("analyze", "a", *ask)
            assert killed.code != 0 and calls, killed.err
    assert found(tmp_path / "runs") == {}
    assert lth("analyze", "a", *ask).code == 0
    (again,) = found(tmp_path / "runs").values()
    assert len(calls) == 2 and again == whole


def test_nothing_is_kept_of_a_block_that_is_done():
    """Memory is flat over blocks: gradients go with the training."""
    block, inputs = torch.nn.Linear(3, 3), torch.randn(4, 1, 3)
    before = block.weight.detach().clone()
    orders = iter([torch.arange(4)])
    train(
        lambda layer, x: layer(x), [block], [], inputs, inputs, orders,
        epochs=1, batch=2, lr=0.1, check=lambda: None,
    )  # fmt: skip
    assert not torch.equal(block.weight, before) and block.weight.grad is None


def test_bad_questions_are_refused(lth, text, small):
    assert lth("train", *small, "name=b").code == 0
    refused = lth("analyze", "b", "analysis=reconstruction")
    assert refused.code != 0 and "is of causal language models" in refused.err
    assert lth("train", *text, *sizes("opt"), "model.width=12").code == 0
    refused = lth("analyze", "a", *ASK, "analysis.samples=10000")
    assert refused.code != 0 and "too short" in refused.err
    refused = lth("analyze", "a", *ASK, "analysis.pattern=4:8")
    assert refused.code != 0 and "no multiple of 8" in refused.err
