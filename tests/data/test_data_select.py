"""Splits, subsets and label noise."""

from __future__ import annotations

import pytest
import torch
from data_helpers import FAKE, dataset

from lth_cli.config.errors import ConfigError
from lth_cli.config.seeds import derive_seed
from lth_cli.data.select import Selection, select

LABELS = torch.arange(1000) % 5
TEST = torch.arange(100) % 5


def chosen(split_seed: int = 0, **keys: object) -> tuple[dict[str, Selection], int]:
    return select(LABELS, TEST, 5, dataset(FAKE, **keys), split_seed)


def test_derived_seeds_are_fixed_63_bit_and_differ_by_every_argument() -> None:
    assert derive_seed(0, "order", 1) == 1860338126330257371  # a change would change every run
    seeds = [
        derive_seed(*a) for a in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1))
    ]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


def test_everything_is_kept_by_default() -> None:
    splits, classes = chosen()
    assert classes == 5 and set(splits) == {"train", "test"}
    assert torch.equal(splits["train"].index, torch.arange(1000)) and torch.equal(
        splits["train"].labels, LABELS
    )


@pytest.mark.parametrize(("validation", "count"), [(100, 100), (0.25, 250)])
def test_validation_is_disjoint_from_training(validation: float, count: int) -> None:
    splits, _ = chosen(validation=validation)
    train, val = splits["train"].index, splits["val"].index
    assert len(val) == count and sorted(torch.cat([train, val]).tolist()) == list(range(1000))
    assert torch.equal(splits["val"].labels, LABELS[val])
    assert not torch.equal(val, chosen(split_seed=1, validation=validation)[0]["val"].index)


def test_a_fraction_leaves_the_validation_split_alone_and_is_nested() -> None:
    full = chosen(validation=100)[0]
    half, tenth = (chosen(validation=100, subset={"fraction": f})[0] for f in (0.5, 0.1))
    assert torch.equal(half["val"].index, full["val"].index)
    assert len(half["train"].index) == 450 and len(tenth["train"].index) == 90
    assert set(tenth["train"].index.tolist()) < set(half["train"].index.tolist())
    assert len(chosen(subset={"fraction": 1e-9})[0]["train"].index) == 1


def test_classes_are_relabelled_in_the_order_named() -> None:
    splits, classes = chosen(subset={"classes": [4, 1]})
    assert classes == 2
    for name, labels in (("train", LABELS), ("test", TEST)):
        original = labels[splits[name].index]
        assert torch.equal(splits[name].labels, (original == 1).long()) and set(original.tolist()) == {1, 4}


def test_label_noise_hits_exactly_its_share_of_the_whole_training_set_only() -> None:
    noisy = chosen(label_noise=0.5)[0]["train"].labels
    changed = int((noisy != LABELS).sum())
    assert changed <= 500 and abs(changed - 500 * 0.8) < 40  # a fifth of the drawn labels are right by chance
    splits, _ = chosen(label_noise=0.5, validation=100)
    assert torch.equal(splits["val"].labels, LABELS[splits["val"].index])
    assert torch.equal(splits["test"].labels, TEST)
    counts = torch.bincount(chosen(label_noise=1.0)[0]["train"].labels, minlength=5)
    assert counts.min() > 150 and len(counts) == 5


@pytest.mark.parametrize(
    "keys",
    [{"validation": 100}, {"subset": {"fraction": 0.3}}, {"validation": 0.2, "subset": {"fraction": 0.5}}],
)
def test_label_noise_of_an_example_does_not_depend_on_what_is_chosen(keys: dict[str, object]) -> None:
    everything = chosen(label_noise=0.5)[0]["train"].labels
    part = chosen(label_noise=0.5, **keys)[0]["train"]
    assert torch.equal(part.labels, everything[part.index])


def test_noise_is_drawn_before_a_score_chooses() -> None:
    """The easiest under noise are those that the score was measured on: none of them is wrong here."""
    everything = chosen(label_noise=0.5)[0]["train"].labels
    difficulty = (everything != LABELS).double()
    config = dataset(FAKE, label_noise=0.5, subset={"by": "el2n", "scores": "s", "count": 400})
    easiest = select(LABELS, TEST, 5, config, 0, difficulty)[0]["train"]
    assert torch.equal(easiest.labels, LABELS[easiest.index])


def test_noise_of_a_class_subset_is_over_the_classes_kept() -> None:
    splits, _ = chosen(label_noise=1.0, subset={"classes": [4, 1]})
    train = splits["train"]
    assert set(LABELS[train.index].tolist()) == {1, 4} and len(train.index) == 400
    counts = torch.bincount(train.labels, minlength=2)
    assert len(counts) == 2 and counts.min() > 150


def test_label_noise_redraws_round_of_share_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []

    def count(high: int, size: tuple[int, ...], **_: object) -> torch.Tensor:
        draws.append(size)
        return torch.full(size, 99)

    monkeypatch.setattr(torch, "randint", count)
    splits, _ = chosen(label_noise=0.3337)
    assert int((splits["train"].labels == 99).sum()) == 334 and draws == [(334,)]


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"validation": 1000}, "dataset.validation", "nothing to train on"),
        ({"validation": 0.99999}, "dataset.validation", "nothing to train on"),
        ({"validation": 0.00001}, "dataset.validation", "less than one"),
        ({"subset": {"classes": [1, 7]}}, "dataset.subset.classes.1", "classes are 0 to 4"),
        ({"subset": {"classes": [1, 1]}}, "dataset.subset.classes.1", "twice"),
        ({"subset": {"classes": []}}, "dataset.subset.classes", "null keeps all"),
    ],
)
def test_mistakes_are_named(keys: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(**keys)
    assert caught.value.problems[0][0] == path and words in caught.value.problems[0][1]


def test_a_class_without_examples_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"no test examples"):
        select(LABELS, TEST * 0, 5, dataset(FAKE, subset={"classes": [3]}), 0)


def ranked(difficulty: torch.Tensor, **subset: object) -> list[int]:
    config = dataset(FAKE, subset={"by": "el2n", "scores": "somewhere", **subset})
    return select(LABELS, TEST, 5, config, 0, difficulty)[0]["train"].index.tolist()


def test_a_subset_by_a_score_is_of_the_easiest_or_hardest() -> None:
    difficulty = torch.arange(1000, dtype=torch.float64)
    difficulty[[3, 500]] = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    difficulty[[7, 900]] = torch.tensor([2000.0, 2001.0], dtype=torch.float64)
    assert ranked(difficulty, count=4) == [0, 1, 3, 500]
    assert ranked(difficulty, count=3, offset=1) == [0, 1, 3]
    assert ranked(difficulty, count=3, keep="hardest") == [7, 900, 999]
    assert ranked(difficulty, count=2, keep="hardest", offset=1) == [7, 999]
    # of those classes alone: 3 and 500 are of others
    assert ranked(difficulty, count=2, classes=[2]) == [2, 12]
    assert ranked(difficulty, count=1000) == list(range(1000))
    for count, offset in ((1000, 1), (1, 1000)):
        with pytest.raises(ConfigError, match=f"{count} after an offset of {offset} is more than the 1000"):
            ranked(difficulty, count=count, offset=offset)


def test_equals_are_chosen_by_seed_not_by_stored_order() -> None:
    """Stored by class, the first ones of equal scores would be of the first class alone."""
    labels = torch.arange(1000) // 200
    difficulty = (torch.arange(1000) % 200 >= 100).double()  # of each class half

    def easy(split_seed: int, **subset: object) -> Selection:
        config = dataset(FAKE, subset={"by": "forgetting", "scores": "s", "count": 250, **subset})
        return select(labels, TEST, 5, config, split_seed, difficulty)[0]["train"]

    chosen = easy(0)
    assert not difficulty[chosen.index].any()
    assert torch.bincount(chosen.labels, minlength=5).min() > 30  # 50 of each are expected
    assert torch.equal(chosen.index, easy(0).index) and not torch.equal(chosen.index, easy(1).index)
    hardest = easy(0, keep="hardest", count=750)
    assert not set(chosen.index.tolist()) & set(hardest.index.tolist())
    # Equals stand alike whatever else is left out.
    config = dataset(FAKE, validation=100, subset={"by": "loss", "scores": "s", "count": 200})
    fewer = select(labels, TEST, 5, config, 0, difficulty)[0]["train"]
    assert set(fewer.index.tolist()) < set(chosen.index.tolist())


def test_a_balanced_subset_by_a_score_has_the_first_of_each_class() -> None:
    difficulty = torch.arange(1000, dtype=torch.float64)
    assert ranked(difficulty, count=7, class_balanced=True) == [0, 1, 2, 3, 4, 5, 6]
    easy_class = difficulty - 2000.0 * (LABELS == 3)
    assert ranked(easy_class, count=7, class_balanced=True) == [0, 1, 2, 3, 4, 5, 6]
    assert ranked(easy_class, count=7, class_balanced=True, offset=10) == list(range(10, 17))
    assert ranked(easy_class, count=5, class_balanced=True, keep="hardest") == list(range(995, 1000))
    with pytest.raises(ConfigError, match="a multiple of the 5 classes, got 7"):
        ranked(difficulty, count=5, class_balanced=True, offset=7)
    with pytest.raises(ConfigError, match="201 is more than the 200 of class 0"):
        ranked(difficulty, count=1001, class_balanced=True)


def test_a_random_subset_of_a_size() -> None:
    drawn = chosen(subset={"count": 300})[0]["train"].index
    assert torch.equal(drawn, chosen(subset={"fraction": 0.3})[0]["train"].index)
    with pytest.raises(ConfigError, match="1001 is more than the 1000 training examples"):
        chosen(subset={"count": 1001})
    balanced, fewer = (
        chosen(subset={"count": count, "class_balanced": True}, validation=50)[0]["train"]
        for count in (302, 47)
    )
    assert torch.bincount(balanced.labels, minlength=5).tolist() == [61, 61, 60, 60, 60]
    assert torch.bincount(fewer.labels, minlength=5).tolist() == [10, 10, 9, 9, 9]
    assert set(fewer.index.tolist()) < set(balanced.index.tolist())
    other = chosen(split_seed=1, subset={"count": 302, "class_balanced": True}, validation=50)[0]["train"]
    assert not torch.equal(balanced.index, other.index)


def test_every_example_to_choose_from_needs_a_score() -> None:
    difficulty = torch.zeros(1000, dtype=torch.float64)
    held_out = chosen(validation=100)[0]["val"].index
    difficulty[held_out] = torch.nan  # scores of a run with the same validation split
    config = dataset(FAKE, validation=100, subset={"by": "loss", "scores": "s", "count": 10})
    assert len(select(LABELS, TEST, 5, config, 0, difficulty)[0]["train"].index) == 10
    with pytest.raises(ConfigError, match="no score of 100 of the 1000"):
        ranked(difficulty, count=10)
