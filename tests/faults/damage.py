"""Ways in which a disk or a person damages the files of a run."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path


def flip_bit(path: Path, generator: random.Random) -> None:
    """One bit somewhere, in place, as a failing disk does."""
    content = bytearray(path.read_bytes())
    position = generator.randrange(len(content))
    content[position] ^= 1 << generator.randrange(8)
    _in_place(path, bytes(content))


def truncate(path: Path, generator: random.Random) -> None:
    """Only the beginning is left, cut inside of a line."""
    content = path.read_bytes()
    cut = generator.randrange(1, len(content))
    while content[cut - 1 : cut] == b"\n":
        cut -= 1
    _in_place(path, content[: max(cut, 1)])


def empty(path: Path, generator: random.Random) -> None:
    """Nothing is left, as after a power cut without fsync."""
    _in_place(path, b"")


def delete(path: Path, generator: random.Random) -> None:
    """Nothing is there."""
    path.unlink()


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return (exec, ("import pathlib; pathlib.Path('executed').touch()",))


def put_pickle(path: Path, generator: random.Random) -> None:
    """A pickle that runs code where it is loaded."""
    _in_place(path, pickle.dumps(_Bomb()))


def giant_header(path: Path, generator: random.Random) -> None:
    """A safetensors header that claims 10 GB."""
    _in_place(path, (10 * 2**30).to_bytes(8, "little") + path.read_bytes()[8:])


def yaml_bomb(path: Path, generator: random.Random) -> None:
    """A few bytes that stand for billions of values."""
    levels = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(12)]
    _in_place(path, "\n".join(["a: &a [x, x, x, x, x, x, x, x, x, x]", *levels]).encode())


def plant_target(path: Path, generator: random.Random) -> None:
    """A stored config that names a function which is not ours."""
    text = path.read_text().replace("lth_cli.models.mlp.MLP", "os.system")
    assert "os.system" in text
    _in_place(path, text.encode())


def nested_json(path: Path, generator: random.Random) -> None:
    """JSON nested deeper than any parser recurses."""
    _in_place(path, b"[" * 200_000)


def nan_json(path: Path, generator: random.Random) -> None:
    """A JSON file whose first number is NaN."""
    _in_place(path, json.dumps({**json.loads(path.read_text()), "density": float("nan")}).encode())


def _in_place(path: Path, content: bytes) -> None:
    """Into the same inode, so that every name of it is damaged, as on a disk."""
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)


def swap(one: Path, other: Path) -> None:
    """Two files change places."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


Damage = Callable[[Path, random.Random], None]
_ANY: tuple[Damage, ...] = (flip_bit, truncate, empty, delete)
# Which damage suits which files, by what their paths end in.
KINDS: dict[str, tuple[Damage, ...]] = {
    "checkpoints/step_*.safetensors": (*_ANY, put_pickle, giant_header),
    "round_*/mask.safetensors": (*_ANY, put_pickle, giant_header),
    "round_*/metrics.jsonl": _ANY,
    "round_*/summary.json": (*_ANY, nested_json, nan_json),
    "run/run.json": (*_ANY, nested_json),
    "run/results.csv": _ANY,
    "run/config.yaml": (*_ANY, yaml_bomb, plant_target),
    # The store can lose a file without harm: what is missing is trained again.
    ".store/*/step_*.safetensors": (flip_bit, truncate, empty, put_pickle, giant_header),
    ".store/*/trajectory.json": (flip_bit, truncate, empty, delete, nested_json),
    ".store/*/metrics.jsonl": (flip_bit,),
    ".store/*/segments.jsonl": (flip_bit,),
}


def candidates(folder: Path, pattern: str) -> list[Path]:
    """Files of the runs in a folder to which a key of `KINDS` applies."""
    return sorted(
        path for path in (folder / "runs").rglob(pattern.rsplit("/", maxsplit=1)[-1]) if path.match(pattern)
    )


def copy_runs(finished: Path, place: Path) -> Path:
    """A copy of a folder, the links between runs and store as they were."""
    names: dict[int, Path] = {}
    for path in sorted(finished.rglob("*")):
        target = place / path.relative_to(finished)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        inode = path.stat().st_ino
        target.parent.mkdir(parents=True, exist_ok=True)
        if inode in names:
            target.hardlink_to(names[inode])
        else:
            shutil.copy2(path, target)
            names[inode] = target
    return place
