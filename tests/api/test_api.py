"""What a notebook has of runs, and what other programs read of them."""

import json
import subprocess
import sys

import pytest
import torch

import lth_cli
from lth_cli.api.asking import overrides
from lth_cli.config.errors import RequestError
from lth_cli.training.evaluate import evaluate


@pytest.fixture(scope="module")
def opened(tmp_path_factory, small):
    """A run of two rounds and controls, made from Python."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTH_CACHE_DIR", str(folder / "cache"))
        return lth_cli.prune(
            *small,
            {
                "name": "imp",
                "runs_dir": folder / "runs",
                "pruning": {"rounds": 2},
                "controls.kinds": ["random"],
            },
        )


@pytest.fixture(scope="module")
def outputs(opened):
    """Of round 2 on ten test examples."""
    inputs = opened.data()["test"].tensors[0][:10]
    with torch.no_grad():
        return inputs, opened.round(2).model()(inputs)


def test_importing_is_light() -> None:
    script = (
        "import sys, lth_cli; lth_cli.__all__; assert not {'torch', 'pandas', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_keys_are_written_as_typed() -> None:
    nested = {"pruning": {"rounds": 3}, "a.b": None, "c": [1, "x y"], "d": True, "e": "500it"}
    assert overrides(["seed=1", nested]) == [
        *("seed=1", "pruning.rounds=3", "a.b=null", "c=[1,'x y']", "d=true", "e=500it")
    ]
    with pytest.raises(RequestError, match=r"a: .* is no text"):
        overrides([{"a": object()}])


def test_a_model_measures_what_the_run_noted(opened) -> None:
    round_ = opened.round(2)
    recipe = round_.recorded.plan.dense.recipe
    found = evaluate(round_.model(), recipe.objective, recipe.data, "test", recipe.execution, lambda: False)
    assert found["accuracy"] == round_.recorded.round.summary["metrics"]["test"]["accuracy"]


def test_masks_and_states(opened) -> None:
    start, dense = opened.round(2).state("init"), opened.round(0).state("init")
    for name, mask in opened.round(2).masks().items():
        assert torch.equal(start.weights[name][mask], dense.weights[name][mask])
        assert not opened.round(2).model().get_parameter(name)[~mask].any()
    assert opened.round(1, "random").masks().keys() == opened.round(1).masks().keys()
    with pytest.raises(RequestError, match="no finished round 7; it has 0, 1, 2"):
        opened.round(7)


def test_results_are_tidy(opened) -> None:
    pytest.importorskip("pandas", reason="pandas is an extra")
    table = lth_cli.runs(opened.path.parent / "*")
    assert list(table.columns[:5]) == ["run", "seed", "kind", "round", "density"]
    assert list(table["kind"]) == ["ticket"] * 3 + ["random"] * 2
    assert table["round"].tolist() == [0, 1, 2, 1, 2]


def test_an_analysis_is_a_table(opened) -> None:
    pytest.importorskip("pandas", reason="pandas is an extra")
    lth_cli.analyze(opened, "analysis=masks", {"runs_dir": opened.path.parent, "device": "cpu"})
    assert set(opened.analysis("masks", table="layers")["layer"]) >= set(opened.round(2).masks())
    with pytest.raises(RequestError, match="name one with table="):
        opened.analysis("masks")
    with pytest.raises(RequestError, match="no finished analysis"):
        opened.analysis("curvature")


def test_no_runs_is_told(tmp_path) -> None:
    with pytest.raises(RequestError, match="no run at"):
        lth_cli.runs(tmp_path / "*")


def export(lth_in, opened, form, path):
    run, folder = str(opened.path), opened.path.parent
    done = lth_in(folder.parent, "export", run, str(path), "--round", "2", "--to", form)
    assert done.code == 0, done.err
    return path


@pytest.mark.parametrize("form", ["state_dict", "csr", "prune", "safetensors", "huggingface"])
def test_exported_weights_give_the_same_outputs(opened, outputs, lth_in, tmp_path, form) -> None:
    from safetensors.torch import load_file
    from torch.nn.utils import prune

    path = export(lth_in, opened, form, tmp_path / "ticket")
    masks = opened.round(2).masks()
    model = opened.round(0).model(step="init")
    if form in ("safetensors", "huggingface"):
        stored = load_file(path / "model.safetensors" if form == "huggingface" else path)
        for name, mask in masks.items():
            assert torch.equal(stored.pop(f"mask.{name}"), mask)
    else:
        stored = torch.load(path, weights_only=True)
    if form == "csr":
        assert {name for name, t in stored.items() if t.layout == torch.sparse_csr} == set(masks)
        assert all(stored[name].values().numel() <= int(mask.sum()) for name, mask in masks.items())
        stored = {name: t.to_dense() for name, t in stored.items()}
    if form == "prune":
        for name in masks:
            prune.identity(model.get_submodule(name.removesuffix(".weight")), "weight")
    model.load_state_dict(stored)
    inputs, expected = outputs
    with torch.no_grad():
        assert torch.equal(model(inputs), expected)
    if form == "huggingface":
        card, config = (path / "README.md").read_text(), json.loads((path / "config.json").read_text())
        assert "test accuracy" in card and config["round"] == 2
        assert "\nlth prune device=cpu " in card


def test_onnx_gives_the_same_outputs(opened, outputs, lth_in, tmp_path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="an extra")
    import onnxruntime

    path = export(lth_in, opened, "onnx", tmp_path / "ticket.onnx")
    inputs, expected = outputs
    (found,) = onnxruntime.InferenceSession(path).run(None, {"inputs": inputs.numpy()})
    difference = (torch.from_numpy(found) - expected).abs().max().item()
    print("onnx: largest difference", difference)
    assert difference < 1e-5


def test_nothing_is_overwritten(opened, lth_in, tmp_path) -> None:
    (tmp_path / "mine").write_text("kept")
    command = ("export", str(opened.path), str(tmp_path / "mine"), "--round", "2", "--to", "state_dict")
    done = lth_in(tmp_path, *command)
    assert done.code == 2 and "exists already" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (
        tmp_path / "mine"
    ).read_text() == "kept"
