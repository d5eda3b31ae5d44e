"""BERT tickets: rounds of Chen et al. 2020, controls, transfer; weights from elsewhere; resuming."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune

from lth_cli.store.runs import Run

PRUNE = (
    "pruning.schedule=linear",
    "pruning.rounds=10",
    "pruning.density=0.7",
    "rewind.carry=[classifier.*]",
    "schedule=linear",
    "schedule.final=0.9",
    "training.length=1ep",
)


def opened(folder, name):
    return Run(folder / "runs" / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, tiny, running, task):
    """A folder with `pre`, trained on masked tokens, and `imp`, three rounds of tickets from its end."""
    folder = tmp_path_factory.mktemp("tickets")
    done = lth_in(folder, "train", *tiny, *running, "training.length=12it", "name=pre", "--quiet")
    assert done.code == 0, done.err
    done = lth_in(folder, "prune", *tiny, *task, *PRUNE, "pretrain.weights=pre", "name=imp", "--quiet")
    assert done.code == 0, done.err
    return folder


def test_masks_are_those_of_the_published_code(folder):
    """Its `pruning_model`, called round by round on the same trained weights with amount 1 / (10 - round)."""
    imp = opened(folder, "imp")
    names = list(imp.round(1).masks())
    assert all(
        name.startswith(("bert.encoder.", "bert.pooler.")) and name.endswith("weight") for name in names
    )
    assert len(names) == 2 * 6 + 1
    modules = {name: torch.nn.Module() for name in names}
    for name, module in modules.items():
        module.weight = torch.nn.Parameter(imp.round(0).checkpoint(0).weights[name].clone())
    for number in range(3):
        end = max(imp.round(number).checkpoints())
        trained = imp.round(number).checkpoint(end).weights
        for name, module in modules.items():
            live = module.weight_orig if number else module.weight
            live.data.copy_(trained[name])
            if number:
                module.weight = module.weight_orig * module.weight_mask
        prune.global_unstructured(
            [(module, "weight") for module in modules.values()],
            prune.L1Unstructured,
            amount=1 / (10 - number),
        )
        ours = imp.round(number + 1).masks()
        for name, module in modules.items():
            assert torch.equal(module.weight_mask.bool(), ours[name]), (number, name)


def test_a_round_rewinds_all_but_the_head(folder):
    imp = opened(folder, "imp")
    first, before = imp.round(0).checkpoint(0), imp.round(1)
    start = imp.round(2).checkpoint(0)
    end = before.checkpoint(max(before.checkpoints()))
    masks = imp.round(2).masks()
    for name, weight in start.weights.items():
        if name.startswith("classifier."):
            assert torch.equal(weight, end.weights[name])
            assert not torch.equal(weight, first.weights[name])
        else:
            kept = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            assert torch.equal(weight, first.weights[name] * kept)


def test_the_body_is_that_of_the_pretraining_and_the_head_is_drawn(folder, lth_in):
    body, start = (opened(folder, name).round(0) for name in ("pre", "imp"))
    pretrained = body.checkpoint(max(body.checkpoints())).weights
    for name, weight in start.checkpoint(0).weights.items():
        if name.startswith("bert."):
            assert torch.equal(weight, pretrained[name]), name
        else:
            assert name in ("classifier.weight", "classifier.bias")
    done = lth_in(folder, "verify", "imp")
    assert done.code == 0, done.out
    assert "no faults" in done.out


def test_controls_and_transfer(folder, lth_in, tiny, running):
    for name, given in {
        "ticket": (),
        "random": ("control=random",),
        "other": ("control=reinit",),
        "shuffled": ("control=permuted",),
    }.items():
        done = lth_in(
            folder, "rewind", "imp", "rounds=3", "rewind.carry=[]", *given, f"name={name}", "--quiet"
        )
        assert done.code == 0, done.err
    states = {
        name: opened(folder, name).round(3).checkpoint(0).weights
        for name in ("ticket", "random", "other", "shuffled")
    }
    masks = opened(folder, "imp").round(3).masks()
    theta = opened(folder, "imp").round(0).checkpoint(0).weights
    name, exchanged = (f"bert.encoder.layer.{layer}.output.dense.weight" for layer in (0, 1))
    assert torch.equal(states["ticket"][name], theta[name] * masks[name])
    assert torch.equal(states["shuffled"][name], theta[exchanged] * masks[name])
    bias = "bert.encoder.layer.0.output.dense.bias"
    assert torch.equal(states["shuffled"][bias], theta[bias])
    assert not torch.equal(states["other"][name], states["ticket"][name])
    assert (states["random"][name] != 0).sum() == masks[name].sum()
    wanted = (*running, "dataset.length=8", "control=transferred", "rounds=3", "rewind.carry=[]")
    done = lth_in(folder, "rewind", "imp", *wanted, "name=onto", "--quiet")
    assert done.code == 0, done.err
    onto = opened(folder, "onto").round(3)
    assert torch.equal(onto.checkpoint(0).weights[name], theta[name] * masks[name])
    assert "cls.predictions.bias" in onto.checkpoint(0).weights
    assert lth_in(folder, "verify", "onto", "shuffled").code == 0


def test_masks_of_masked_tokens_are_taken_to_texts(folder, lth_in, tiny, running, task):
    """`c*` are the heads of both, cls and classifier; the pooler is masked too, though masked tokens do not use it."""
    found = ("pruning.schedule=linear", "pruning.rounds=10", "pruning.density=0.9", "pruning.exclude=['c*']")
    given = (*tiny, *running, *found, "pretrain.weights=pre", "training.length=2it", "name=mlm", "--quiet")
    assert lth_in(folder, "prune", *given).code == 0
    wanted = (*task, "dataset.length=8", "control=transferred", "rounds=1", "training.length=2it")
    done = lth_in(folder, "rewind", "mlm", *wanted, "name=texts", "--quiet")
    assert done.code == 0, done.err
    start, masks = (
        opened(folder, "texts").round(1).checkpoint(0).weights,
        opened(folder, "mlm").round(1).masks(),
    )
    assert len(masks) == 2 * 6 + 1
    theta = opened(folder, "imp").round(0).checkpoint(0).weights
    for name, mask in masks.items():
        assert torch.equal(start[name], theta[name] * mask), name


def test_a_run_goes_on_without_the_weights_that_it_started_from(tmp_path, lth_in, tiny, task, folder):
    body = opened(folder, "pre").round(0)
    weights = body.checkpoint(max(body.checkpoints())).weights
    named = {
        name.removeprefix("bert."): tensor for name, tensor in weights.items() if name.startswith("bert.")
    }
    (tmp_path / "model").mkdir()
    save_file(named, tmp_path / "model/model.safetensors")
    given = (*tiny, *task, "training.length=1ep", f"pretrain.weights={tmp_path / 'model'}", "--quiet")
    done = lth_in(tmp_path, "train", *given, "name=a")
    assert done.code == 0, done.err
    assert "drawn anew" in done.err + done.out
    shutil.rmtree(tmp_path / "model")
    done = lth_in(tmp_path, "train", *given, "name=a")
    assert done.code == 0, done.err
    end = max(opened(tmp_path, "a").round(0).checkpoints())
    exported = lth_in(
        tmp_path, "export", "a", "--round", "0", "--to", "safetensors", str(tmp_path / "out.safetensors")
    )
    assert exported.code == 0, exported.err
    out, state = load_file(tmp_path / "out.safetensors"), opened(tmp_path, "a").round(0).checkpoint(end)
    assert all(torch.equal(out[name], weight) for name, weight in state.weights.items())
    again = lth_in(tmp_path, "train", *given, "name=b")
    assert again.code == 2
    assert "pretrain.weights" in again.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("dataset.length=32",), "longer than model.positions=16"),
        (("dataset.tokenizer=null",), "name the folder of a tokenizer"),
        (("dataset.path=nothing.tsv",), "cannot be read"),
        (("dataset.text=headline",), "has no column 'headline'"),
        (("dataset.labels=['0','2']",), "the label '1'"),
        (("pretrain.weights=nothing.safetensors",), "cannot be read"),
        (("pretrain.weights=FOLDER",), "do not fit the model"),
        (("rewind.carry=[bert.pooler.*]",), "are pruned"),
        (("objective=masked_tokens", "objective.schedule=linear"), "needs final="),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, lth_in, tiny, task, folder, given, said):
    save_file({"embeddings.word_embeddings.weight": torch.zeros(9, 16)}, tmp_path / "wrong.safetensors")
    given = [text.replace("FOLDER", str(tmp_path / "wrong.safetensors")) for text in given]
    done = lth_in(tmp_path, "prune", *tiny, *task, *given)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs").exists()


def test_masked_training_resumed_has_the_same_bytes(tmp_path, lth_in, tiny, running):
    given = (
        *tiny,
        *running,
        "objective.rate=0.5",
        "objective.schedule=linear",
        "objective.final=0.2",
        "--quiet",
    )
    straight = lth_in(tmp_path, "train", *given, "training.length=10it", "name=a")
    assert straight.code == 0, straight.err
    round_ = opened(tmp_path, "a").round(0)
    store = tmp_path / "runs/.store" / round_.summary["trajectory"]
    whole = round_.checkpoint(10).weights
    half = ("training.length=10it", "checkpoint.keep=[4it]", "checkpoint.every=4it", "name=b")
    assert lth_in(tmp_path, "train", *given, *half).code == 0
    for path in (*store.glob("step_*10.safetensors"), *store.glob("resume*")):
        path.unlink()
    shutil.rmtree(tmp_path / "runs/a")
    shutil.rmtree(tmp_path / "runs/b")
    assert lth_in(tmp_path, "train", *given, "training.length=10it", "name=c").code == 0
    found = opened(tmp_path, "c").round(0)
    assert found.summary["steps_trained"] < 10
    assert all(torch.equal(whole[name], weight) for name, weight in found.checkpoint(10).weights.items())
    assert json.loads(json.dumps(found.summary["description"]))["objective"]["masking_steps"] == 10
