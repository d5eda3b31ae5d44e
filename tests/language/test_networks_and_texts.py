"""Networks of transformers as lth builds them, tied embeddings, and texts to tokens."""

import gzip
import json

import pytest
import torch

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Interface
from lth_cli.data.texts import GLUE, glue, running_text, sentences
from lth_cli.models.blocks import permuted_blocks, repeated_blocks
from lth_cli.models.build import build, output_tensors, prunable
from lth_cli.models.layers import turned

SIZES = {"vocabulary": 30, "length": 8}
TOKENS = Interface((8,), "int64", (8, 30), SIZES)
CLASSES = Interface((8,), "int64", (2,), {**SIZES, "classes": 2, "padding": 0})
PAIRS = Interface((2, 8), "int64", (3,), {**SIZES, "classes": 3, "padding": 0})
TOLD = Interface((8,), "int64", (8, 2), {**SIZES, "token_classes": 2})


def network(family, interface, seed=0, **more):
    sizes = {"width": 16, "depth": 2, "heads": 2, "positions": 16, **more}
    if family != "gpt2":
        sizes["hidden"] = 32
    section = {"_target_": f"lth_cli.models.language.{family}", **sizes}
    return build(schema.Model.model_validate(section), interface, seed)


@pytest.mark.parametrize(
    ("family", "interface"),
    [
        *(
            (family, interface)
            for family in ("bert", "gpt2", "opt", "llama")
            for interface in (TOKENS, CLASSES)
        ),
        ("bert", PAIRS),
        ("bert", TOLD),
    ],
)
def test_networks(family, interface):
    first, again, other = (
        network(family, interface),
        network(family, interface),
        network(family, interface, 1),
    )
    ours, same, others = (dict(model.named_parameters()) for model in (first, again, other))
    assert all(torch.equal(weight, same[name]) for name, weight in ours.items())
    names = [name for name in prunable(first, biases=False) if name not in output_tensors(first)]
    assert not any("embed" in name or "norm" in name.lower() or "wte" in name for name in names)
    assert all(not torch.equal(ours[name], others[name]) for name in names)
    blocks = repeated_blocks({name: ours[name].shape for name in names})
    assert [len(place) for places in blocks.values() for place in places] == [2] * sum(
        map(len, blocks.values())
    )


def test_a_tied_embedding_is_one_tensor():
    model = network("bert", TOKENS)
    assert "bert.embeddings.word_embeddings.weight" in output_tensors(model)
    assert "cls.predictions.decoder.weight" not in dict(model.named_parameters())
    assert (
        model.get_parameter("cls.predictions.decoder.weight") is model.bert.embeddings.word_embeddings.weight
    )


def test_weights_that_lie_the_other_way_round():
    assert turned(network("opt", TOKENS)) == []
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert turned(network("gpt2", TOKENS)) == [
        f"transformer.h.{block}.{layer}.weight" for block in (0, 1) for layer in layers
    ]


@pytest.mark.parametrize(
    "given",
    [
        "pruning.pattern=2:4 pruning.rounds=1",
        "pruning.pattern=block_4x4",
        "sparse_training=gradual sparse_training.pattern=block_2x2",
        "rewind.isometry=5",
        "model.init.weights=kaiming_normal",
    ],
)
def test_what_would_take_them_the_wrong_way_round_is_refused(tmp_path, lth_in, tiny, running, given):
    tiny = tuple(key for key in tiny if "hidden" not in key and "model=" not in key)
    command = "train" if "sparse_training" in given else "prune"
    done = lth_in(
        tmp_path,
        command,
        *tiny,
        *running,
        "model=gpt2",
        "objective=next_token",
        "dataset.pieces=next",
        *given.split(),
    )
    assert done.code == 2
    key = given.split("=")[0] if "gradual" not in given else "sparse_training.pattern"
    assert key in done.err and "8 weights here lie [inputs, outputs]" in " ".join(done.err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("family", ["bert", "gpt2", "opt", "llama"])
def test_logits_are_of_the_tokens_that_the_tokenizer_has(family):
    """An embedding may have more rows, as OPT's 50,272 for 50,265 tokens."""
    model = network(family, TOKENS, rows=40)
    assert model(torch.ones(2, 8, dtype=torch.int64)).shape == (2, 8, 30)
    assert 40 in {parameter.shape[0] for parameter in model.parameters()}


def test_padding_changes_no_answer():
    model = network("bert", CLASSES).eval()
    short = torch.tensor([[2, 7, 8, 3]])
    long = torch.cat([short, torch.zeros(1, 4, dtype=torch.int64)], 1)
    assert torch.allclose(model(short), model(long), atol=1e-6)


def test_blocks_that_are_exchanged():
    weights = {f"a.{block}.w": torch.full((2,), float(block)) for block in range(3)} | {"b.w": torch.zeros(2)}
    moved = permuted_blocks(weights, list(weights), seed=0)
    assert sorted(float(weight[0]) for weight in moved.values()) == [0.0, 1.0, 2.0]
    assert any(float(moved[f"a.{block}.w"][0]) != block for block in range(3))
    assert repeated_blocks({"a.0.w": (2,), "a.1.w": (3,)}) == {}


def test_tokens_by_hand(tmp_path, tokenizer, place):
    """[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, good 5, fine 6, great 7."""
    (tmp_path / "a.tsv").write_text("text\tpair\tlabel\ngood fine\tgreat\tb\nquux\tgood\ta\n")
    given = {
        "tokenizer": str(tokenizer),
        "path": str(tmp_path / "a.tsv"),
        "test_path": str(tmp_path / "a.tsv"),
    }
    found = sentences(place, **given, pair="pair", length=8)
    assert found.train["tokens"].tolist() == [[2, 5, 6, 3, 7, 3, 0, 0], [2, 1, 3, 5, 3, 0, 0, 0]]
    assert found.train["segments"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]
    assert found.train["labels"].tolist() == [1, 0]
    assert found.sizes == {
        **{"vocabulary": 25, "length": 8, "classes": 2},
        **{"padding": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4},
    }
    again = sentences(place, **given, pair="pair", length=8)
    assert torch.equal(again.train["tokens"], found.train["tokens"])
    assert len(list(place.cache.glob("tokens-*.safetensors"))) == 1
    (tmp_path / "a.txt").write_text("good fine\n\ngreat good fine great\n")
    given = {
        "tokenizer": str(tokenizer),
        "path": str(tmp_path / "a.txt"),
        "test_path": str(tmp_path / "a.txt"),
    }
    masked = running_text(place, **given, length=4)
    assert masked.train["tokens"].tolist() == [[2, 5, 6, 3], [2, 7, 5, 3], [2, 6, 7, 3]]
    following = running_text(place, **given, length=2, pieces="next")
    assert following.train["tokens"].tolist() == [[5, 6, 7], [7, 5, 6]]


def test_glue_by_its_files(tmp_path, tokenizer, place):
    for task, lines in {
        "CoLA": ["gj04\t1\t\tgood fine", "gj04\t0\t*\tfine"],
        "STS-B": ["sentence1\tsentence2\tscore", "good\tfine\t2.5", "good\tgood\t5.0", "good"],
    }.items():
        folder = place.root / "glue_data" / task
        folder.mkdir(parents=True)
        for name in ("train.tsv", "dev.tsv"):
            (folder / name).write_text("\n".join(lines) + "\n")
    assert glue(place, task="CoLA", tokenizer=str(tokenizer), length=8).train["labels"].tolist() == [1, 0]
    assert glue(place, task="STS-B", tokenizer=str(tokenizer), length=8).train["targets"].tolist() == [
        2.5,
        5.0,
    ]
    with pytest.raises(Exception, match="is not there"):
        glue(place, task="RTE", tokenizer=str(tokenizer))
    with pytest.raises(ConfigError, match="is none of CoLA"):
        glue(place, task="cola", tokenizer=str(tokenizer))
    assert len(GLUE) == 9


def test_json_lines_of_c4_and_what_is_wrong_in_tables(tmp_path, tokenizer, place):
    """Shards are split by their names; nothing that is no text, class or number passes for one."""
    given = {"tokenizer": str(tokenizer), "length": 4}
    c4 = tmp_path / "c4"
    c4.mkdir()
    for name, text in (
        ("train.00000-of-00002", "good"),
        ("train.00001-of-00002", "fine"),
        ("validation.00000-of-00001", "bad"),
    ):
        line = json.dumps({"text": f"{text} {text}", "url": "u"})
        (c4 / f"c4-{name}.json.gz").write_bytes(gzip.compress(line.encode()))
    found = running_text(place, path=str(c4), **given)
    assert [found.train["tokens"].tolist(), found.test["tokens"].tolist()] == [
        [[2, 5, 5, 3], [2, 6, 6, 3]],
        [[2, 10, 10, 3]],
    ]
    (c4 / "c4-train.00001-of-00002.json.gz").unlink()
    with pytest.raises(ConfigError, match="has 1 of the 2 files of 'train'"):
        running_text(place, path=str(c4), **given)
    packed = bytearray((c4 / "c4-train.00000-of-00002.json.gz").read_bytes())
    packed[12] ^= 0xFF
    (tmp_path / "torn.jsonl.gz").write_bytes(packed)
    for name, lines, told in (
        ("torn.jsonl.gz", None, "cannot be read"),
        ("a.jsonl", '{"text": null, "label": 1}', "line 1: 'text' is null"),
        ("b.jsonl", '{"text": "good", "label": null}', "line 1: 'label' is null"),
        ("c.jsonl", '{"text": "good", "label": NaN}', "'nan', of example 1, is not finite"),
    ):
        if lines is not None:
            (tmp_path / name).write_text(lines)
        with pytest.raises(ConfigError, match=told):
            sentences(place, path=str(tmp_path / name), test_path=str(tmp_path / name), numbers=True, **given)


def test_segments_are_told_to_networks_that_have_them():
    tokens = torch.tensor([[2, 5, 6, 3]])
    for family, told in (("bert", True), ("gpt2", False)):
        model = network(family, PAIRS, dropout=0.0).eval()
        first, second = (model(torch.stack([tokens, of], 1)) for of in (tokens * 0, (tokens > 4).long()))
        assert torch.equal(first, second) is not told
