"""`lth analyze analysis=curvature`: against the Hessian written out; stored, resumed, refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_helpers import Lth, answer
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from lth_cli.analyses.curvature import spectrum
from lth_cli.analyses.work import Work
from lth_cli.config import schema
from lth_cli.data.batches import labelled
from lth_cli.experiments.recorded import open_round
from lth_cli.store.analyses import StoredAnalysis
from lth_cli.store.runs import Run

# 64 x 4 + 4 x 4 prunable weights; the output layer is not pruned.
TINY = ("model.hidden=[4,4]", "dataset.subset.fraction=0.1")
ASKED = ("analysis=curvature", "analysis.examples=60", "analysis.eigenvalues=4", "analysis.probes=10")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lth_in: Lth, small: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("curvature")
    arguments = ("prune", *small, *TINY, "name=one", "pruning.rounds=1", "controls.kinds=[random]", "-q")
    done = lth_in(folder, *arguments)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def ask(lth_in: Lth, folder: Path, *arguments: str) -> dict[str, Any]:
    return answer(lth_in, folder, "one", *ASKED, *arguments)


class _Here:
    """This machine, to a run that found everything it needs on it."""

    runs_dir, device, threads, data = "runs", "cpu", 1, schema.DataPlace()


def written_out(folder: Path, number: int, *, everything: bool) -> tuple[Tensor, int]:
    """The Hessian at the end of a round in float64 on all training examples, and how many these are."""
    recorded = open_round(Run.open(folder / "runs" / "one"), number, _Here())
    dense = recorded.plan.dense
    model = dense.recipe.build(init_seed=0).double().eval()
    state = recorded.round.checkpoint(recorded.end)
    model.load_state_dict({**state.weights, **state.buffers})
    held = {name: weight.detach() for name, weight in model.named_parameters()}
    kept = recorded.masks
    if everything:
        kept = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in held.items()}
    inputs, labels = (
        torch.cat(parts) for parts in zip(*labelled(dense.data.evaluation("train")), strict=True)
    )

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [held[name].numel() for name in kept])
        live = {name: part.view(held[name].shape) for name, part in zip(kept, parts, strict=True)}
        return functional.cross_entropy(functional_call(model, {**held, **live}, (inputs.double(),)), labels)

    hessian = torch.func.hessian(loss)(torch.cat([held[name].flatten() for name in kept]))
    inside = torch.cat([mask.flatten() for mask in kept.values()])
    return hessian[inside][:, inside], len(labels)


@pytest.mark.parametrize("subspace", ["mask", "all"])
def test_against_the_hessian_written_out(lth_in: Lth, folder: Path, subspace: str) -> None:
    exact, examples = written_out(folder, 1, everything=subspace == "all")
    found = ask(
        lth_in,
        folder,
        "analysis.states=[1]",
        f"analysis.examples={examples}",
        f"analysis.subspace={subspace}",
        "analysis.dtype=float64",
        "analysis.eigenvalue_tolerance=1e-6",
        "analysis.density_steps=400",
        "analysis.probes=100",
    )
    tables = found["tables"]
    values = torch.linalg.eigvalsh(exact)
    largest = [row["eigenvalue"] for row in tables["eigenvalues"]]
    assert largest == pytest.approx(values.flip(0)[:4].tolist(), rel=1e-3)
    whole, *layers = tables["trace"]
    assert whole["weights"] == len(exact) == sum(row["weights"] for row in layers)
    assert abs(whole["trace"] - float(exact.trace())) < 4 * whole["standard_error"]
    assert whole["trace"] == pytest.approx(sum(row["trace"] for row in layers))
    assert tables["diagonal"][0]["mean"] == pytest.approx(whole["trace"] / len(exact))
    nodes = [row["eigenvalue"] for row in tables["quadrature"]]
    assert (min(nodes), max(nodes)) == pytest.approx((float(values[0]), float(values[-1])), rel=1e-3)
    density = tables["density"]
    step = density[1]["eigenvalue"] - density[0]["eigenvalue"]
    assert sum(row["density"] for row in density) * step == pytest.approx(1.0, abs=1e-3)


def test_the_bound_beside_what_was_pruned(lth_in: Lth, folder: Path) -> None:
    exact, examples = written_out(folder, 0, everything=False)
    asked = (f"analysis.examples={examples}", "analysis.rise=0.05", "analysis.density_probes=30")
    found = ask(lth_in, folder, "analysis.states=[0,0@3it,1,random/1]", *asked)
    (row,) = found["tables"]["bound"]  # nothing follows round 1, and nothing prunes the others
    run = Run.open(folder / "runs" / "one")
    weights, first, second = (
        run.round(0).checkpoint(run.round(0).summary["end_step"]).weights,
        run.round(0).masks(),
        run.round(1).masks(),
    )
    gone = torch.cat([weights[name][first[name] & ~second[name]] for name in first])
    assert row["state"] == "one:0@end"
    assert row["removed_norm"] == pytest.approx(float(gone.norm()))
    assert row["pruned"] == pytest.approx(len(gone) / len(exact)) == pytest.approx(0.2, abs=0.01)
    radii = 2 * 0.05 / torch.linalg.eigvalsh(exact).clamp(min=1e-12)
    bound = float((radii / (gone.norm().double() ** 2 + radii)).mean())
    assert abs(row["prunable"] - bound) < 4 * row["standard_error"]
    accuracies = [run.round(number).summary["metrics"]["test"]["accuracy"] for number in (0, 1)]
    assert [row["dense_accuracy"], row["next_accuracy"]] == accuracies
    assert row["next_matches"] == (accuracies[1] >= accuracies[0] - 0.002)


def test_asked_again_nothing_is_computed(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(lth_in, folder)
    products = first["summary"]["products"]
    assert products.keys() == {"one:0@end", "one:1@end"} and all(made > 10 for made in products.values())
    assert (folder / first["path"] / "figure.svg").is_file()
    monkeypatch.setattr(Work, "state", None)
    assert ask(lth_in, folder) == first


def test_stopped_in_the_middle_it_goes_on(lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(lth_in, folder)
    shutil.rmtree(folder / whole["path"])
    quadrature, probes, late = spectrum.quadrature, [], []

    def counted(*arguments: Any, **named: Any) -> Any:
        probes.append(arguments[1])
        return quadrature(*arguments, **named)

    monkeypatch.setattr(spectrum, "quadrature", counted)
    with monkeypatch.context() as stopping:
        # Told to stop some products after the second probe of the first state has begun.
        stopping.setattr(
            Work, "should_stop", lambda work: len(probes) == 2 and (late.append(0) or len(late) > 5)
        )
        stopped = lth_in(folder, "analyze", "one", *ASKED)
    assert stopped.code == 1 and "goes on with what is missing" in stopped.err
    assert not StoredAnalysis(folder / whole["path"]).finished
    hutchinson, states = spectrum.hutchinson, []
    monkeypatch.setattr(
        spectrum, "hutchinson", lambda *given, **named: states.append(0) or hutchinson(*given, **named)
    )
    again = ask(lth_in, folder)
    assert probes == [0, 1, 1, 2, 0, 1, 2] and len(states) == 1
    assert {**again, "finished": None} == {**whole, "finished": None}


def test_the_seed_draws_other_examples(lth_in: Lth, folder: Path) -> None:
    one, other = (
        ask(lth_in, folder, "analysis.states=[0]", f"analysis.seed={seed}")["tables"] for seed in (0, 1)
    )
    assert one["eigenvalues"][0]["eigenvalue"] != pytest.approx(
        other["eigenvalues"][0]["eigenvalue"], rel=1e-3
    )


def test_a_state_that_is_not_finite_is_an_error(
    lth_in: Lth, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Work.state

    def broken(work: Work, *arguments: Any) -> Any:
        found = state(work, *arguments)
        next(iter(found.weights.values())).fill_(math.nan)
        return found

    monkeypatch.setattr(Work, "state", broken)
    done = lth_in(folder, "analyze", "one", *ASKED)
    assert done.code == 1 and "one:0@end is not finite" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("analysis.states=[]",), "analysis.states"),
        (("analysis.states=[4]",), "no finished round 4"),
        (("analysis.examples=5000",), "training examples, not 5000"),
        (("analysis.eigenvalues=272",), "at most 271 can be had"),
        (("analysis.probes=1",), "analysis.probes"),
        (("analysis.rise=0",), "analysis.rise"),
        (("analysis.subspace=half",), "analysis.subspace"),
        (("analysis.dtype=float16",), "analysis.dtype"),
    ],
)
def test_wrong_questions_write_nothing(
    lth_in: Lth, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lth_in(folder, "analyze", "one", *ASKED, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(folder.glob("runs/*/analysis"))
