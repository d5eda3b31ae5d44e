"""Opening a run or a data set from elsewhere runs no code and fills neither memory nor disk."""

import io
import random
import shutil
import tarfile
import zipfile

import damage
import harness
import pytest
from harness import PRUNE, TRAIN, Command

OPENERS = [
    ("ls", "--runs-dir", "runs"),
    ("show", "--runs-dir", "runs", "run"),
    ("verify", "--runs-dir", "runs", "run"),
    ("compare", "--runs-dir", "runs", "run"),
    ("rewind", "run", "runs_dir=runs", "name=again"),
    PRUNE.arguments,
]


@pytest.fixture(scope="module")
def finished(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    zygote.finish(folder, PRUNE)
    return folder


def seal(config):
    """Give a changed config its right checksum, as whoever plants it would."""
    import json

    from lth_cli.store.files import digest, sha256_file

    path = config.with_name("run.json")
    info = json.loads(path.read_text())
    del info["checksum"]
    info["files"]["config.yaml"] = sha256_file(config)
    path.write_text(json.dumps({**info, "checksum": digest(info)}))


@pytest.mark.parametrize("arguments", OPENERS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(
    "kind", [damage.yaml_bomb, damage.plant_target, damage.put_pickle, damage.giant_header]
)
def test_nothing_runs(zygote, finished, tmp_path, arguments, kind):
    place = tmp_path / "copy"
    shutil.copytree(finished, place)
    if kind in (damage.yaml_bomb, damage.plant_target):
        kind(place / "runs/run/config.yaml", random.Random(0))
        text = (place / "runs/run/config.yaml").read_text()
        (place / "runs/run/config.yaml").write_text(text.replace("os.system", "planted.run"))
        seal(place / "runs/run/config.yaml")
    else:
        shutil.rmtree(place / "runs/.store")
        for path in (place / "runs/run").rglob("*.safetensors"):
            kind(path, random.Random(0))
    (place / "planted.py").write_text(
        "import pathlib; pathlib.Path('executed').touch()\ndef run(**_): pass\n"
    )
    before = sorted(place.rglob("*"))
    limits = (
        "import sys, resource; sys.path.insert(0, '.'); resource.setrlimit(resource.RLIMIT_AS, (2**34,) * 2)"
    )
    outcome = zygote.run(place, Command(arguments), code=limits, timeout=30)
    assert outcome.code in (0, 1, 2), outcome.output
    assert "Traceback" not in outcome.output and "fault in lth" not in outcome.output, outcome.output
    assert not (place / "executed").exists()
    if arguments[0] == "rewind":
        assert outcome.code in (1, 2)
        assert kind is not damage.plant_target or "--trust" in outcome.output
        assert [
            path for path in sorted(place.rglob("*")) if path not in before and path.name != "output.txt"
        ] == []


def tar(path, name, link=None):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
        else:
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))


def zipped(path, name):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "evil")


@pytest.mark.parametrize("name", ["../../out.png", "/tmp/lth-out.png", "a/../../out.png", "C:\\out.png"])
@pytest.mark.parametrize("make,ending", [(tar, ".tar"), (zipped, ".zip")])
def test_archives_that_reach_outside(zygote, tmp_path, make, ending, name):
    make(tmp_path / f"images{ending}", name)
    command = TRAIN.with_("dataset=image_folder", f"dataset.path={tmp_path}/images{ending}")
    outcome = zygote.run(tmp_path / "w", command)
    assert outcome.code == 2
    assert "is refused" in outcome.output
    assert not list(tmp_path.rglob("out.png")) and not (tmp_path / "w/runs").exists()


def test_links_in_archives(zygote, tmp_path):
    tar(tmp_path / "images.tar", "train/a/1.png", link="/etc/passwd")
    outcome = zygote.run(
        tmp_path / "w", TRAIN.with_("dataset=image_folder", f"dataset.path={tmp_path}/images.tar")
    )
    assert outcome.code == 2 and "is a link" in outcome.output
    assert harness.results_of(tmp_path / "w") == {}
