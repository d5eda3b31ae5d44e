"""Corrections of concepts: scores and errors by hand, every order and link through the command."""

import csv
import math

import pytest
import torch

from lth_cli.analyses.interventions.mathematics import Answers, by_group, errors, ranks, score
from lth_cli.analyses.interventions.study import groups_of
from lth_cli.analyses.work import Work

RUN = [
    "dataset=synthetic_concepts",
    "dataset.classes=6",
    "dataset.groups=3",
    "dataset.concepts=8",
    "dataset.values=12",
    "dataset.each=20",
    "objective=concepts",
    "model=concept_bottleneck",
    "model.hidden=[16]",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "training.length=3ep",
    "training.batch_size=20",
]


def answers(probabilities, concepts, weight, labels=(0,), of_probabilities=True):
    p = torch.tensor(probabilities, dtype=torch.float64)
    return Answers(
        p.logit(),
        torch.tensor(concepts, dtype=torch.float64),
        torch.tensor(labels),
        torch.tensor(weight, dtype=torch.float64),
        torch.zeros(len(weight), dtype=torch.float64),
        of_probabilities,
    )


def test_scores_by_hand():
    """Two classes told apart by the first concept alone: log odds of class 1 are ln 3 times its value."""
    one = answers([[0.6, 0.9]], [[1.0, 0.0]], [[0.0, 0.0], [math.log(3), 0.0]])
    assert score("ucp", one)[0].tolist() == pytest.approx([100.0, 6.25])
    assert score("lcp", one)[0].tolist() == pytest.approx([0.16, 0.81])
    assert score("cctp", one)[0].tolist() == pytest.approx([0.6 * math.log(3), 0.0])
    now = 3**0.6 / (1 + 3**0.6)
    divergence = [0.5 * math.log(0.5 / now) + 0.5 * math.log(0.5 / (1 - now))]
    divergence.append(0.75 * math.log(0.75 / now) + 0.25 * math.log(0.25 / (1 - now)))
    assert score("ectp", one)[0].tolist() == pytest.approx([0.4 * divergence[0] + 0.6 * divergence[1], 0.0])

    def entropy(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    gain = entropy(now) - (0.4 * math.log(2) + 0.6 * entropy(0.75))
    assert score("eudtp", one)[0].tolist() == pytest.approx([gain, 0.0])


def test_order_by_example_or_of_all_together_by_concept_or_group():
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
    assert ranks(scores, batch=False).tolist() == [[0, 1, 2], [2, 0, 1]]
    assert ranks(scores, batch=True).tolist() == [[0, 0, 1], [2, 1, 2]]
    assert groups_of(["bill::red", "bill::blue", "wing::long"]) == [[0, 1], [2]]
    assert groups_of(["plaque", "scar"]) == []
    assert torch.allclose(by_group(scores, [[0], [1, 2]]), torch.tensor([[0.9, 0.75], [0.1, 0.25]]))


def test_errors_fall_as_concepts_are_told():
    """Class 1 where both concepts are present; the second example needs both corrections."""
    two = answers(
        [[0.9, 0.2], [0.1, 0.2]],
        [[1.0, 1.0], [1.0, 1.0]],
        [[0.75, 0.75], [1.0, 1.0]],
        labels=(1, 1),
    )
    two = Answers(two.logits, two.concepts, two.labels, two.weight, torch.tensor([0.3, 0.0]).double(), True)
    assert errors(two, torch.tensor([[1, 0], [1, 0]]), 2) == [1.0, 0.5, 0.0]


def test_balanced_error_counts_each_class_alike():
    """Of three examples of class 0 one is taken for class 1, the only one of class 1 is right; class 2 has none."""
    four = answers([[0.9], [0.9], [0.1], [0.1]], [[0.0]] * 4, [[1.0], [0.0], [-1.0]], labels=(0, 0, 0, 1))
    four = Answers(
        four.logits, four.concepts, four.labels, four.weight, torch.tensor([0.0, 0.5, 0.0]).double(), True
    )
    untold = torch.zeros(4, 1, dtype=torch.int64)
    assert errors(four, untold, 0) == [1 / 4]
    assert errors(four, untold, 0, balanced=True) == pytest.approx([1 / 6])


def test_logits_are_told_by_percentiles():
    """Logits 0 to 20: the 5th percentile is 1, the 95th 19."""
    logits = torch.arange(21.0, dtype=torch.float64)[:, None]
    many = Answers(
        logits,
        torch.ones_like(logits),
        torch.ones(21, dtype=torch.int64),
        torch.tensor([[0.0], [1.0]]).double(),
        torch.tensor([18.5, 0.0]).double(),
        False,
    )
    assert [float(end) for end in many.ends] == pytest.approx([1.0, 19.0])
    assert errors(many, torch.zeros(21, 1, dtype=torch.int64), 1) == [19 / 21, 0.0]


def curves(runs):
    (file,) = runs.glob("*/analysis/interventions-*/interventions.csv")
    with file.open() as opened:
        found = {}
        for row in csv.DictReader(opened):
            found.setdefault(row["score"], []).append(float(row["error"]))
    return found


@pytest.mark.parametrize("link", ["independent", "sequential", "joint", "joint_probabilities"])
def test_every_link_is_asked_by_every_score(lth, tmp_path, monkeypatch, link):
    if link == "joint":  # as a part is read after a kill
        monkeypatch.setattr(Work, "once", lambda self, key, compute: dict(sorted(compute().items())))
    assert lth("train", *RUN, f"model.link={link}", "name=a").code == 0
    done = lth("analyze", "a", "analysis=interventions", "analysis.trials=2")
    assert done.code == 0, done.err
    found = curves(tmp_path / "runs")
    assert list(found) == ["rand", "ucp", "lcp", "cctp", "ectp", "eudtp"]
    assert all(len(curve) == 9 for curve in found.values())
    assert len({(curve[0], curve[-1]) for curve in found.values()}) == 1
    if link == "independent":
        for how in ("hard", "sampled"):
            assert lth("analyze", "a", "analysis=interventions", f"analysis.concepts={how}").code == 0
    if link == "sequential":
        refused = lth("analyze", "a", "analysis=interventions", "analysis.concepts=hard")
        assert refused.code != 0 and "model.link=sequential" in refused.err
        refused = lth("analyze", "a", "analysis=interventions", "analysis.level=group")
        assert refused.code != 0 and "name no groups" in refused.err


def test_other_networks_are_refused(lth, small):
    assert lth("train", *small, "name=a").code == 0
    refused = lth("analyze", "a", "analysis=interventions")
    assert refused.code != 0 and "is of concept bottlenecks" in refused.err
