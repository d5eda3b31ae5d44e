"""Image folders and archives: layout, cache, safety."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import png, tree
from PIL import Image

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.data import archive
from lth_cli.data.image_folder import image_folder
from lth_cli.data.images import centre_crop, decode, pixels
from lth_cli.data.source import Arrays, Place

Write = Callable[..., Path]


def write_tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        for info in extra:
            made.addfile(info)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def equal(left: Arrays, right: Arrays) -> bool:
    names = ("train_inputs", "train_labels", "test_inputs", "test_labels")
    return left.classes == right.classes and all(
        torch.equal(getattr(left, name), getattr(right, name)) for name in names
    )


@pytest.mark.parametrize("wrapper", ["", "wrapper/", "./"])
@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_and_archives_give_the_same_arrays(
    place: Place, tmp_path: Path, write_tree: Write, wrapper: str, test: str
) -> None:
    files = {wrapper + name: content for name, content in tree(test).items()}
    files |= {
        f"{wrapper}README.md": b"x",
        f"{wrapper}train/cat/.hidden.png": b"x",
        f"{wrapper}train/cat/a.txt": b"x",
    }
    backwards = dict(reversed(files.items()))
    arrays = image_folder(place, path=str(write_tree(files)))
    assert arrays.train_inputs.shape == (8, 3, 6, 6) and arrays.train_labels.tolist() == [0] * 4 + [1] * 4
    assert arrays.classes == 2 and arrays.test_inputs.shape == (8, 3, 6, 6)
    expected = pixels(decode(io.BytesIO(files[f"{wrapper}train/dog/2.png"]), 3))
    assert np.array_equal(arrays.train_inputs[6].numpy(), expected)
    archives = [
        write_tar(tmp_path / f"a{s}", backwards, mode=m) for s, m in ((".tar", "w"), (".tgz", "w:gz"))
    ]
    archives += [
        write_tar(tmp_path / "a.tar.gz", files, mode="w:gz"),
        write_zip(tmp_path / "a.zip", backwards),
    ]
    for path in archives:
        assert equal(image_folder(place, path=str(path)), arrays)


def test_test_is_preferred_to_val(place: Place, write_tree: Write) -> None:
    files = tree("test") | {name: content for name, content in tree("val", count=1).items() if "val" in name}
    assert len(image_folder(place, path=str(write_tree(files))).test_labels) == 8


def test_size_and_channels(place: Place, write_tree: Write) -> None:
    files = tree() | {"train/cat/wide.png": png(0, width=12, height=6)}
    path = str(write_tree(files))
    with pytest.raises(ConfigError, match=r"dataset.size: .*wide.png is 12x6; dataset.size=6") as caught:
        image_folder(place, path=path)
    assert caught.value.problems[0][0] == "dataset.size"
    arrays = image_folder(place, path=path, size=5, channels=1)
    assert arrays.train_inputs.shape == (9, 1, 5, 5)


@pytest.mark.parametrize("shape", [(40, 30), (30, 41), (33, 33), (7, 50)])
def test_the_centre_crop_is_torchvisions(shape: tuple[int, int]) -> None:
    from torchvision.transforms import functional

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    expected = functional.center_crop(functional.resize(image, 16), 14)
    assert np.array_equal(np.asarray(centre_crop(image, 16, 14)), np.asarray(expected))


def test_a_cache_is_used_until_something_changes(
    place: Place, write_tree: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tree(tree())
    arrays = image_folder(place, path=str(folder))
    with monkeypatch.context() as patched:
        patched.setattr("lth_cli.data.image_folder._decode", lambda *_: pytest.fail("decoded again"))
        assert equal(image_folder(place, path=str(folder)), arrays)
    (folder / "train/cat/0.png").write_bytes(png(77))
    os.utime(folder / "train/cat/0.png", ns=(1, 1))
    assert not equal(image_folder(place, path=str(folder)), arrays)
    assert len(list((place.cache / "image_folder").iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "garbage"])
def test_a_damaged_cache_is_made_again(
    place: Place, write_tree: Write, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = write_tree(tree())
    arrays = image_folder(place, path=str(folder))
    (cache,) = (place.cache / "image_folder").iterdir()
    content = bytearray(cache.read_bytes())
    content[-100] ^= 1
    damaged = {"flip": content, "cut": content[:-50], "empty": b"", "garbage": b"x" * 300}[damage]
    whole = cache.read_bytes()
    cache.write_bytes(bytes(damaged))
    with caplog.at_level(logging.WARNING):
        assert equal(image_folder(place, path=str(folder)), arrays)
    assert "decoded again" in caplog.text and cache.read_bytes() == whole


def test_images_that_cannot_be_kept_are_still_used(
    place: Place, write_tree: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    unusable = replace(place, cache=tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        assert image_folder(unusable, path=str(write_tree(tree()))).classes == 2
    assert "LTH_CACHE_DIR" in caplog.text


def _decode_in_process(place: Place, path: str, results: multiprocessing.SimpleQueue[bytes]) -> None:
    results.put(image_folder(place, path=path).train_inputs.numpy().tobytes())


def test_processes_decoding_at_once_leave_one_whole_cache(place: Place, write_tree: Write) -> None:
    path = str(write_tree(tree(count=30)))
    spawn = multiprocessing.get_context("fork")
    results = spawn.SimpleQueue()
    processes = [spawn.Process(target=_decode_in_process, args=(place, path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {results.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1 and len(list((place.cache / "image_folder").iterdir())) == 1
    assert image_folder(place, path=path).train_inputs.numpy().tobytes() in found


@pytest.mark.parametrize(
    "name", ["../train/cat/x.png", "train/../../x.png", "/train/cat/x.png", "C:/train/x.png", "a\\..\\x.png"]
)
def test_names_outside_the_archive_are_refused(place: Place, tmp_path: Path, name: str) -> None:
    files = tree() | {name: png(0)}
    for path in (write_tar(tmp_path / "a.tar", files), write_zip(tmp_path / "a.zip", files)):
        with pytest.raises(ConfigError, match=r"is refused: .*(outside the archive|absolute name)"):
            image_folder(place, path=str(path))
    assert not place.cache.exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_links_and_devices_in_tars_are_refused(place: Place, tmp_path: Path, kind: bytes, word: str) -> None:
    info = tarfile.TarInfo("train/cat/x.png")
    info.type, info.linkname = kind, "/etc/passwd"
    path = write_tar(tmp_path / "a.tar", tree(), info)
    with pytest.raises(ConfigError, match=f"'train/cat/x.png' is a {word}"):
        image_folder(place, path=str(path))


def test_links_in_zips_are_refused(place: Place, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", tree())
    with zipfile.ZipFile(path, "a") as made:
        info = zipfile.ZipInfo("train/cat/x.png")
        info.external_attr = 0o120777 << 16
        made.writestr(info, "/etc/passwd")
    with pytest.raises(ConfigError, match=r"is a link"):
        image_folder(place, path=str(path))


def test_huge_and_repeated_members_are_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_FILE", 200)
    big = tree() | {"train/cat/bomb.png": bytes(1000)}
    for path in (write_tar(tmp_path / "a.tar", big), write_zip(tmp_path / "a.zip", big)):
        with pytest.raises(ConfigError, match=r"unpacks to 1000 bytes"):
            image_folder(place, path=str(path))
    info = tarfile.TarInfo("train/cat/0.png")
    with pytest.raises(ConfigError, match=r"'train/cat/0.png' 2 times"):
        image_folder(place, path=str(write_tar(tmp_path / "b.tar", tree(), info)))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".zip"])
def test_damaged_archives_are_named(place: Place, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(ConfigError, match=r"the archive .* cannot be read"):
        image_folder(place, path=str(path))
    if suffix in {".tar.gz", ".zip"}:
        made = write_zip(path, tree()) if suffix == ".zip" else write_tar(path, tree(), mode="w:gz")
        made.write_bytes(made.read_bytes()[:-200])
        with pytest.raises(ConfigError, match=r"the archive .* cannot be read"):
            image_folder(place, path=str(made))


def test_undecodable_images_are_named(place: Place, write_tree: Write) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6)).save(deep, "PNG")
    bad = {
        "train/cat/a.jpg": b"not an image",
        "test/dog/b.png": png(0)[:45],
        "train/dog/c.png": deep.getvalue(),
    }
    with pytest.raises(RequestError) as caught:
        image_folder(place, path=str(write_tree(tree() | bad)))
    assert all(name in str(caught.value) for name in bad) and "8 bits" in str(caught.value)
    many = {f"train/cat/bad{number:02d}.png": b"" for number in range(13)}
    with pytest.raises(RequestError, match=r"and 3 more"):
        image_folder(place, path=str(write_tree(tree() | many, "many")))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train/cat/0.png": b""}, "no images in test or val"),
        ({"test/cat/0.png": b""}, "no images in train"),
        ({"train/0.png": b"", "test/cat/0.png": b""}, "no images in train"),
        ({"train/cat/0.png": b"", "test/cow/0.png": b""}, "without training images: cow"),
        ({"a/train/cat/0.png": b"", "b/train/cat/0.png": b""}, "more than one data set"),
    ],
)
def test_other_layouts_are_refused(
    place: Place, tmp_path: Path, write_tree: Write, files: dict[str, bytes], words: str
) -> None:
    for path in (write_tree(files), write_zip(tmp_path / "a.zip", files)):
        with pytest.raises(ConfigError, match=words) as caught:
            image_folder(place, path=str(path))
        assert caught.value.problems[0][0] == "dataset.path"


def test_paths_that_are_no_images_are_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a.rar is not one of these"):
        image_folder(place, path=str(tmp_path / "a.rar"))
    with pytest.raises(ConfigError, match=r"does not exist"):
        image_folder(place, path=str(tmp_path / "nowhere"))


def promising(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises an image of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 2**20) + b"IDAT" + bytes(64)


def test_more_pixels_than_any_photograph_are_not_decoded(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="promises 13,000 x 13,000 pixels"):
        decode(io.BytesIO(promising(13_000, 13_000)), 3)
    files = {"train/a/1.png": promising(13_000, 13_000), "test/a/1.png": promising(13_000, 13_000)}
    source = write_tar(tmp_path / "images.tar", files)
    with pytest.raises(RequestError, match=r"train/a/1\.png \(promises 13,000 x 13,000 pixels"):
        image_folder(place, path=str(source))


def test_images_that_together_fit_no_memory_are_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the arrays are made: the kernel would give the memory and kill whoever uses it."""
    source = write_tar(tmp_path / "images.tar", {"train/a/1.png": png(1), "test/a/1.png": png(2)})
    monkeypatch.setattr(os, "sysconf", lambda _: 8)  # 8 pages of 8 bytes
    with pytest.raises(ConfigError, match=r"dataset\.size: is needed: 2 images of .* as train/a/1\.png is"):
        image_folder(place, path=str(source))
