"""SQuAD: windows, labels, best spans and scores by hand, and what is wrong with its files."""

import json

import pytest
import torch

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.spec import Spec
from lth_cli.data.squad import squad
from lth_cli.objectives.answer_spans import AnswerSpans, best_spans, compare, words
from lth_cli.store.runs import Run
from lth_cli.training.evaluate import summarize

CONTEXT = "The film was great and very good."
ASKED = [
    {"id": "a", "question": " so good", "answers": [{"text": "very good", "answer_start": 23}]},
    {"id": "b", "question": "plot", "answers": [
        {"text": "was", "answer_start": 9}, {"text": "The film", "answer_start": 0},
    ]},
]  # fmt: skip
OTHER = {
    "context": "Üñï good",
    "qas": [{"id": "c", "question": "is", "answers": [{"text": "good", "answer_start": 4}]}],
}


def told(*paragraphs):
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})


@pytest.fixture
def files(place):
    folder = place.root / "squad"
    folder.mkdir()
    (folder / "train-v1.1.json").write_text(told({"context": CONTEXT, "qas": ASKED}, OTHER))
    (folder / "dev-v1.1.json").write_text(told(OTHER))
    return folder


def test_windows_by_hand(place, tokenizer, files):
    """Room for 5 tokens of the context, 2 of them shared: the full stop is [UNK], 1."""
    found = squad(place, tokenizer=str(tokenizer), length=10, overlap=2)
    assert found.train["tokens"].tolist() == [
        [2, 22, 5, 3, 17, 15, 19, 7, 24, 3],
        [2, 22, 5, 3, 7, 24, 21, 5, 1, 3],
        [2, 16, 3, 17, 15, 19, 7, 24, 21, 3],
        [2, 16, 3, 24, 21, 5, 1, 3, 0, 0],
        [2, 20, 3, 1, 5, 3, 0, 0, 0, 0],
    ]
    assert found.train["segments"][1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert found.train["spans"].tolist() == [[0, 0], [6, 7], [5, 5], [0, 0], [4, 4]]
    assert found.train["question"].tolist() == [0, 0, 1, 1, 2]
    assert bytes(found.train["text"][1].tolist()).rstrip(b"\xff") == b"great and very good."
    assert found.train["offsets"][1, 4:9].tolist() == [[0, 5], [6, 9], [10, 14], [15, 19], [19, 20]]
    assert found.train["offsets"][4].tolist() == [[-1, -1]] * 3 + [[0, 6], [7, 11]] + [[-1, -1]] * 5
    assert bytes(found.train["answers"][2].tolist()).rstrip(b"\xff") == b"was\xffThe film"
    assert found.test["text"].shape[1] == found.train["text"].shape[1]
    assert found.sizes["unanswered"] == 0


def test_words_as_the_official_evaluation_has_them():
    assert words("The  U.S.'s a-b, an (Answer)") == ["uss", "ab", "answer"]
    assert compare("film was", ["the film", "plot"], unanswered=False) == (0.0, pytest.approx(2 / 3))
    assert compare("Great film!", ["a great film"], unanswered=False) == (1.0, 1.0)
    assert compare("the", ["a"], unanswered=False) == (1.0, 0.0)  # by the rules of 1.1
    assert compare("the", ["a"], unanswered=True) == (1.0, 1.0)
    assert compare("film", [], unanswered=True) == (0.0, 0.0)
    assert compare("", [], unanswered=True) == (1.0, 1.0)


def test_the_best_span():
    """Of the sums that may be: 5 + 3 ends before it begins, 5 + 4 is no part of the text, 5 + 2 is too long for 2."""
    outputs = torch.tensor([[[0.0, 4], [0, 3], [5, 1], [1, 0], [0, 2]]])
    inside = torch.tensor([[False, True, True, True, True]])
    assert [x.tolist() for x in best_spans(outputs, inside, 5, 3)] == [[7.0], [2], [4]]
    assert [x.tolist() for x in best_spans(outputs, inside, 5, 2)] == [[6.0], [2], [2]]
    assert best_spans(outputs, inside, 1, 3)[0].tolist() == [-torch.inf]


def batch_of(fields):
    objective = AnswerSpans().settled(
        Spec(
            {name: tuple(tensor.shape[1:]) for name, tensor in fields.train.items()},
            {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in fields.train.items()},
            fields.sizes,
        ),
        steps_per_epoch=1,
        horizon=1,
    )
    return objective, fields.train


def spoken(ends, score=9.0):
    """Outputs whose best spans are these."""
    outputs = torch.zeros(len(ends), 10, 2)
    for row, (first, last) in enumerate(ends):
        outputs[row, first, 0] = outputs[row, last, 1] = score + row
    return outputs


def test_scores_of_questions(place, tokenizer, files):
    """The later window of each question has the higher sum: "and very good" (F1 0.8), "very" (0), "good" (1)."""
    objective, batch = batch_of(squad(place, tokenizer=str(tokenizer), length=10, overlap=2))
    outputs = spoken([(4, 5), (5, 7), (5, 5), (4, 4), (4, 4)])
    parts = []
    for rows in (slice(3, 5), slice(0, 3)):  # windows of a question in two batches
        part = {name: tensor[rows] for name, tensor in batch.items()}
        measured = {name: value.tolist() for name, value in objective.measure(outputs[rows], part).items()}
        parts.append({**measured, "examples": len(part["tokens"])})
    found = summarize(objective, parts)
    assert found["f1"] == pytest.approx((0.8 + 0.0 + 1.0) / 3)
    assert found["exact_match"] == pytest.approx(1 / 3)
    nothing = objective.task(torch.zeros(5, 10, 2), batch)
    assert float(nothing) == pytest.approx(float(torch.tensor(10.0).log()))


def test_no_answer(place, tokenizer, files):
    """The begin token of every window must say so; of question b the first does not."""
    asked = [{**one, "answers": []} for one in ASKED]
    for name in ("train", "dev"):
        (files / f"{name}-v2.0.json").write_text(told({"context": CONTEXT, "qas": asked}, OTHER))
    objective, batch = batch_of(squad(place, tokenizer=str(tokenizer), unanswered=True, length=10, overlap=2))
    assert batch["spans"][:4].tolist() == [[0, 0]] * 4
    outputs = spoken([(4, 5), (5, 7), (5, 5), (4, 4), (4, 4)])
    outputs[:, 0] = torch.tensor([20.0, 20.0, 0.0, 20.0, 0.0])[:, None]
    measured = {name: value.tolist() for name, value in objective.measure(outputs, batch).items()}
    found = summarize(objective, [{**measured, "examples": 5}])
    assert (found["f1"], found["exact_match"]) == pytest.approx((2 / 3, 2 / 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ('{"version": 1}', "a part of it has no 'data'"),
        ("[1]", "is no SQuAD"),
        (told(), "has no questions"),
        (
            told({"context": "good", "qas": [{"id": "q", "question": "is", "answers": []}]}),
            "dataset.unanswered=true",
        ),
        (told({**OTHER, "context": "ok"}), "answer 'good' of c is not within its context"),
    ],
)
def test_files_that_are_no_squad(place, tokenizer, files, text, message):
    (files / "dev-v1.1.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        squad(place, tokenizer=str(tokenizer), length=10, overlap=2)
    assert not place.cache.exists()


def test_what_does_not_fit(place, tokenizer, files):
    with pytest.raises(RequestError, match=r"train-v2\.0\.json is not there; SQuAD is"):
        squad(place, tokenizer=str(tokenizer), unanswered=True)
    with pytest.raises(ConfigError, match=r"10 leaves 5 tokens beside a question of 2, which must be more"):
        squad(place, tokenizer=str(tokenizer), length=10, overlap=5)


def test_training_is_that_of_the_library(place, tokenizer, tiny, files, lth_in):
    """Its network with the trained weights has the loss that was measured."""
    import transformers

    given = ("dataset=squad", f"dataset.tokenizer={tokenizer}", f"dataset.path={files}", "dataset.overlap=2")
    done = lth_in(
        place.root, "train", *tiny, *given, "objective=answer_spans", "dataset.length=10",
        "training.length=6it", "training.batch_size=4", "name=a", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = Run(place.root / "runs" / "a")
    line = next(line for line in run.round(0).metrics() if line["step"] == 6 and line["split"] == "test")
    assert {"f1", "exact_match"} <= line.keys()
    weights = run.round(0).checkpoint(6).weights
    config = transformers.BertConfig(
        vocab_size=25, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    theirs = transformers.BertForQuestionAnswering(config).eval()
    left = theirs.load_state_dict(weights, strict=False)
    assert left.missing_keys == [] and all("pooler" in name for name in left.unexpected_keys)
    test = squad(place, tokenizer=str(tokenizer), path=str(files), length=10, overlap=2).test
    found = theirs(
        input_ids=test["tokens"], token_type_ids=test["segments"], attention_mask=(test["tokens"] != 0).long(),
        start_positions=test["spans"][:, 0].long(), end_positions=test["spans"][:, 1].long(),
    )  # fmt: skip
    assert found.loss.item() == pytest.approx(line["loss"], rel=1e-5)
