"""Data with concepts: the synthetic graph and its variants, and the files of CUB and SkinCon in small."""

import pytest
import torch
from PIL import Image

from lth_cli.config.errors import ConfigError
from lth_cli.data.concept_images import cub, skincon
from lth_cli.data.concepts import balance, synthetic_concepts

SMALL = {"classes": 12, "groups": 4, "concepts": 20, "values": 8, "each": 10}


def of_class(fields):
    concepts, labels = fields.train["concepts"], fields.train["labels"]
    return torch.stack([concepts[labels == label][0] for label in range(12)])


def test_classes_of_a_group_differ_by_one_concept_of_each():
    found = synthetic_concepts(None, **SMALL)
    assert (len(found.train["labels"]), len(found.test["labels"])) == (102, 18)
    assert found.sizes == {"classes": 12, "concepts": 20}
    classes = of_class(found)
    assert all(
        torch.equal(classes[label], row)
        for split in (found.train, found.test)
        for label, row in zip(split["labels"].tolist(), split["concepts"], strict=True)
    )
    for group in classes.view(4, 3, 20):
        assert [int((group[a] != group[b]).sum()) for a, b in ((0, 1), (0, 2), (1, 2))] == [2, 2, 2]
    again = synthetic_concepts(None, **SMALL)
    assert all(torch.equal(found.train[name], again.train[name]) for name in found.train)


def test_examples_are_of_their_concepts_and_noise():
    clean = synthetic_concepts(None, **SMALL, noise_std=0.0)
    noisy = synthetic_concepts(None, **SMALL, noise_std=2.0)
    # Concepts of a group determine each other: in single precision the rank is a matter of the machine.
    inputs, concepts = (clean.train[name].double() for name in ("inputs", "concepts"))
    weights = torch.linalg.lstsq(concepts, inputs, driver="gelsd").solution.float()
    assert torch.allclose(clean.test["concepts"] @ weights, clean.test["inputs"], atol=1e-4)
    assert float((noisy.train["inputs"] - clean.train["inputs"]).std()) == pytest.approx(2.0, rel=0.1)


def test_variants():
    whole, hidden = (synthetic_concepts(None, **SMALL, hidden=share) for share in (0.0, 0.5))
    assert hidden.train["concepts"].shape == (102, 10)
    assert torch.equal(hidden.train["inputs"], whole.train["inputs"])
    diverse = synthetic_concepts(None, **SMALL, diversity=0.25)
    turned = (diverse.train["concepts"] != whole.train["concepts"]).float().mean()
    assert float(turned) == pytest.approx(0.25, abs=0.03)
    rare = synthetic_concepts(None, **SMALL, alpha_mean=0.95)
    assert rare.train["concepts"].mean() < whole.train["concepts"].mean()


def test_weights_are_absent_by_present():
    concepts = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert balance(concepts).tolist() == [3.0, 1.0, 0.0]
    found = synthetic_concepts(None, **SMALL)
    assert torch.equal(found.test["concept_weights"][3], balance(found.train["concepts"]))
    assert "concept_weights" not in synthetic_concepts(None, **SMALL, weighted=False).train


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 5}, "cannot have as many"),
        ({"concepts": 2}, "turn over"),
        ({"test": 0.01}, "dataset.test"),
    ],
)
def test_wrong_graphs(wrong, message):
    with pytest.raises(ConfigError, match=message):
        synthetic_concepts(None, **{**SMALL, **wrong})


def birds(folder):
    """Four training and two test images of two classes; attribute 2 of image 1 is not visible."""
    (folder / "attributes").mkdir(parents=True)
    (folder / "attributes.txt").write_text("1 has_bill::red\n2 has_bill::blue\n3 has_wing::long\n")
    names = [f"00{1 + n // 3}.Bird/{n}.png" for n in range(6)]
    (folder / "images.txt").write_text("".join(f"{n + 1} {name}\n" for n, name in enumerate(names)))
    (folder / "image_class_labels.txt").write_text("".join(f"{n + 1} {1 + n // 3}\n" for n in range(6)))
    (folder / "train_test_split.txt").write_text("".join(f"{n + 1} {int(n % 3 != 2)}\n" for n in range(6)))
    present = ["101", "110", "100", "011", "001", "111"]
    (folder / "attributes" / "image_attribute_labels.txt").write_text(
        "".join(
            f"{n + 1} {a + 1} {value} {1 if (n, a) == (0, 1) else 4} 0.5\n"
            for n, row in enumerate(present)
            for a, value in enumerate(row)
        )
    )
    for n, name in enumerate(names):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (40 * n, 0, 255)).save(folder / "images" / name)
    return folder


def test_birds_have_the_attributes_of_their_class(tmp_path, place):
    """Class 1: red both times, blue once of one seen, wing once of two, which counts. Class 2: blue and wing."""
    folder = birds(tmp_path / "CUB_200_2011")
    found = cub(place, path=str(folder), side=8, least=1)
    assert found.names == {"concepts": ("has_bill::red", "has_bill::blue", "has_wing::long")}
    assert found.train["concepts"].tolist() == [[1, 1, 1]] * 2 + [[0, 1, 1]] * 2
    assert found.train["labels"].tolist() == [0, 0, 1, 1]
    assert found.train["inputs"][:, 0, 0, 0].tolist() == [0, 40, 120, 160]
    assert found.test["inputs"].shape == (2, 3, 8, 8)
    assert cub(place, path=str(folder), side=8, least=2).names["concepts"] == (
        "has_bill::blue",
        "has_wing::long",
    )
    noted = cub(place, path=str(folder), side=8, least=1, level="instance")
    assert noted.train["concepts"].tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
    with pytest.raises(ConfigError, match="present in 3 classes"):
        cub(place, path=str(folder), side=8, least=3)


def test_a_bird_without_an_attribute_is_named(tmp_path, place):
    folder = birds(tmp_path / "CUB_200_2011")
    file = folder / "attributes" / "image_attribute_labels.txt"
    file.write_text(file.read_text().replace("4 2 1 4 0.5\n", ""))
    with pytest.raises(ConfigError, match=r"every concept of 002.Bird/3.png as 0 or 1$"):
        cub(place, path=str(folder), side=8, least=1)
    file.write_text("1 1 x\n")
    with pytest.raises(ConfigError, match="line 1 is not 4 columns"):
        cub(place, path=str(folder), side=8, least=1)


def test_skin(tmp_path, place):
    folder = tmp_path / "skincon"
    (folder / "fitz").mkdir(parents=True)
    rows, diagnoses = [",ImageID,Plaque,Scar,Do not consider this image"], ["md5hash,three_partition_label"]
    for n in range(21):
        rows.append(f"{n},{n}.png,{n % 2},0,{int(n == 20)},beyond")
        diagnoses.append(f"{n},{'malignant' if n % 4 == 0 else 'benign'}")
        Image.new("RGB", (9, 9), (n, 0, 0)).save(folder / "fitz" / f"{n}.png")
    (folder / "annotations_fitzpatrick17k.csv").write_text("\n".join(rows))
    (folder / "fitzpatrick17k.csv").write_text("\n".join(diagnoses))
    found = skincon(place, path=str(folder), side=8, least=10)
    assert found.names == {"concepts": ("Plaque",)}
    numbers = torch.cat([split["inputs"][:, 0, 0, 0] for split in (found.train, found.test)])
    assert sorted(numbers.tolist()) == list(range(20))
    assert torch.equal(found.train["labels"], (found.train["inputs"][:, 0, 0, 0] % 4 == 0).long())
    assert torch.equal(found.train["concepts"][:, 0], (found.train["inputs"][:, 0, 0, 0] % 2).float())
    for missing in ("", "?", "0.5"):
        (folder / "annotations_fitzpatrick17k.csv").write_text(
            "\n".join([*rows[:3], f"2,2.png,1,{missing},0"])
        )
        with pytest.raises(ConfigError, match=r"every concept of 2.png"):
            skincon(place, path=str(folder), side=8, least=2)
