"""A folder that open_lth itself wrote, and weights beside masks, become runs; what does not fit is refused."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

REPLICATE = next((Path(__file__).parent.parent / "fixtures" / "open_lth").glob("lottery_*")) / "replicate_1"
MLP = ("dataset=digits", "model=mlp", "model.hidden=[5]", "device=cpu", "threads=1", "training.length=2ep")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """The images that the fixture was trained on, as idx files."""
    digits = load_digits()
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    large = np.kron(digits.images, np.ones((3, 3))) * 255 / 16
    images = np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    for prefix, part in (("train", slice(0, 240)), ("t10k", slice(240, 360))):
        shown, labels = images[part], digits.target[part].astype(np.uint8)
        header = struct.pack(">IIII", 2051, len(shown), 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + shown.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, len(labels)) + labels.tobytes()
        )
    return ("device=cpu", "threads=1", f"data.root={root}")


def test_an_open_lth_folder_is_imported_rewound_and_analysed(lth, mnist, tmp_path) -> None:
    done = lth("import", str(REPLICATE.parent), *mnist, "name=theirs")
    assert done.code == 0, done.err
    # Measured here to the last digit what open_lth measured, or there would be a word about it.
    assert done.err == "lth: not carried over: data_order_seed=3\n"
    run = json.loads(lth("show", "theirs", "--json").out)
    logged = [REPLICATE / f"level_{level}" / "main" / "logger" for level in (0, 1, 2)]
    ends = [float(path.read_text().split("test_accuracy,120,")[1].split()[0]) for path in logged]
    assert [row["test_accuracy"] for row in run["results"]] == pytest.approx(ends, abs=1e-6)
    reported = json.loads((REPLICATE / "level_2" / "main" / "sparsity_report.json").read_text())
    assert run["results"][2]["density"] == reported["unpruned"] / reported["total"]
    assert run["config"]["rewind"]["to"] == "5it" and run["config"]["schedule"]["milestones"] == ["8ep"]
    assert run["info"]["imported"]["form"] == "open_lth"
    assert "imported   open_lth" in lth("show", "theirs").out
    assert lth("verify", "theirs").code == 0

    done = lth("rewind", "theirs", "name=again", "rounds=last")
    assert done.code == 0, done.err
    start = json.loads((tmp_path / "runs/again/round_02/summary.json").read_text())["start"]
    assert start == {"trajectory": run["info"]["imported"]["dense"], "step": 5}
    assert lth("verify", "again").code == 0
    done = lth(
        "analyze", "theirs", "analysis=connectivity", "analysis.states=[0@end,2@end]", "analysis.points=3"
    )
    assert done.code == 0, done.err
    assert "cannot be repeated" in lth("rewind", "theirs", "name=no", "rewind.to=0").err


def test_other_bytes_are_another_start(lth, mnist, tmp_path) -> None:
    copy = shutil.copytree(REPLICATE, tmp_path / "copy")
    for level in (0, 1, 2):
        path = copy / f"level_{level}" / "main" / "model_ep0_it5.pth"
        tensors = torch.load(path, weights_only=True)
        tensors["fc.bias"][0] += 1e-6
        torch.save(tensors, path)
    for name, folder in (("one", REPLICATE), ("two", copy)):
        assert lth("import", str(folder), *mnist, f"name={name}").code == 0
    dense = [
        json.loads(lth("show", name, "--json").out)["info"]["imported"]["dense"] for name in ("one", "two")
    ]
    assert dense[0] != dense[1]


def _edit_mask(folder, edit):
    path = folder / "level_1" / "main" / "mask.pth"
    masks = torch.load(path, weights_only=True)
    edit(masks)
    torch.save(masks, path)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("bomb"),)


DAMAGE = {
    "has values that are neither 0 nor 1": lambda f: _edit_mask(f, lambda m: m["fc.weight"].fill_(2)),
    "is no parameter of the model": lambda f: _edit_mask(f, lambda m: m.update(odd=m.pop("fc.weight"))),
    "the mask of fc.weight is [3]": lambda f: _edit_mask(f, lambda m: m.update({"fc.weight": torch.ones(3)})),
    "the sparsity_report.json beside it says": lambda f: _edit_mask(f, lambda m: m["fc.weight"].zero_()),
    "mask.pth is missing": lambda f: (f / "level_1" / "main" / "mask.pth").unlink(),
    "hparams.log is missing": lambda f: (f / "level_0" / "main" / "hparams.log").unlink(),
    "holds no weights that can be read": lambda f: torch.save(Bomb(), f / "level_0/main/model_ep0_it5.pth"),
    "does not start from the weights of level 0": lambda f: shutil.copy(
        f / "level_2/main/model_ep10_it0.pth", f / "level_2/main/model_ep0_it5.pth"
    ),
    "lies beyond an epoch": lambda f: (f / "level_0/main/model_ep0_it5.pth").rename(
        f / "level_0/main/model_ep0_it50.pth"
    ),
    "lth has no 'vit'": lambda f: (f / "level_0/main/hparams.log").write_text(
        (f / "level_0/main/hparams.log").read_text().replace("mnist_lenet_6", "vit")
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_folder_that_does_not_fit_leaves_nothing(lth, mnist, tmp_path, message) -> None:
    copy = shutil.copytree(REPLICATE, tmp_path / "copy")
    DAMAGE[message](copy)
    done = lth("import", str(copy), *mnist)
    assert done.code == 2 and message in done.err, done.err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "bomb").exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, lth_in):
    folder = tmp_path_factory.mktemp("exported")
    assert lth_in(folder, "prune", *MLP, "name=imp", "pruning.rounds=1", "rewind.to=3it").code == 0
    for form in ("safetensors", "prune", "state_dict"):
        for step in ("init", "end"):
            assert (
                lth_in(
                    folder,
                    "export",
                    "imp",
                    "--round",
                    "1",
                    "--step",
                    step,
                    "--to",
                    form,
                    f"{form}-{step}.safetensors" if form == "safetensors" else f"{form}-{step}.pt",
                ).code
                == 0
            )
    return folder


@pytest.mark.parametrize("file", ["safetensors-init.safetensors", "prune-init.pt"])
def test_an_exported_ticket_comes_back_and_trains_to_the_same_bytes(exported, lth_in, tmp_path, file) -> None:
    done = lth_in(tmp_path, "import", str(exported / file), *MLP, "name=back", "rewind.to=3it")
    assert done.code == 0, done.err
    assert lth_in(tmp_path, "rewind", "back", "name=trained").code == 0
    ends = [
        next((folder / "round_01" / "checkpoints").glob("step_*[1-9]*.safetensors")).parent
        for folder in (exported / "runs/imp", tmp_path / "runs/trained")
    ]
    from lth_cli.store.states import load_state, stored_steps

    theirs, ours = (load_state(list(stored_steps(folder).values())[-1]) for folder in ends)
    assert theirs.step == ours.step
    assert all(torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items())


def test_weights_at_the_end_take_a_mask_of_their_own(exported, lth_in, tmp_path) -> None:
    marks = torch.load(exported / "prune-end.pt", weights_only=True)
    save_file(
        {name.removesuffix("_mask"): mask for name, mask in marks.items() if name.endswith("_mask")},
        tmp_path / "mask.safetensors",
    )
    weights = str(exported / "state_dict-end.pt")
    assert "has no mask" in lth_in(tmp_path, "import", weights, *MLP, "--at", "end").err
    done = lth_in(
        tmp_path, "import", weights, "--mask", "mask.safetensors", "--at", "end", *MLP, "name=trained"
    )
    assert done.code == 0, done.err
    assert "not among the states the run keeps: none" in lth_in(tmp_path, "rewind", "trained", "name=no").err
    assert lth_in(tmp_path, "rewind", "trained", "name=yes", "control.start=end").code == 0
    assert "imported" in lth_in(tmp_path, "prune", "--from", "trained", "name=more").err
