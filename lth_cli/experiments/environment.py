"""What a run notes about where it ran."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lth_cli.config.schema import Config
from lth_cli.config.sources import own_file


def describe_machine(config: Config) -> dict[str, Any]:
    """Versions and hardware, and whether the same seed gives the same bytes here."""
    device = torch.device(config.device)
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": {
            "lth": version("lth-cli"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
        },
        "hardware": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "device": config.device,
            "accelerator": accelerator,
            "threads": config.threads,
        },
        "repeatable": device.type == "cpu",
        "not_repeatable_because": None
        if device.type == "cpu"
        else f"{device.type} has kernels without a repeatable variant; torch only warns about those",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a stream, not a file
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit checked out where the command was typed, `+` appended when the tree differs; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


_LONGEST_DIFF = 2**20


def own_code_git(modules: Iterable[str]) -> list[dict[str, Any]]:
    """What git says of files of a person's own code, a mapping a repository; nothing of files outside git.

    Args:
        modules: by name, as `own_code` found them.

    Returns:
        `repository` (name of its folder), `commit` checked out (None before the first), `files` by path in it, `diff`
        of these files against the commit (None where longer than 1 MiB), and those `untracked`.
    """
    repositories: dict[Path, set[str]] = {}
    for module in modules:
        path = own_file(module)
        try:
            if path is not None:
                path = path.resolve()
                top = Path(_git("-C", str(path.parent), "rev-parse", "--show-toplevel")).resolve()
                repositories.setdefault(top, set()).add(path.relative_to(top).as_posix())
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
    found = []
    for top, files in sorted(repositories.items()):
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            found.append(_of_repository(top, sorted(files)))
    return found


def _of_repository(top: Path, files: list[str]) -> dict[str, Any]:
    where = ("-C", str(top))
    try:
        commit: str | None = _git(*where, "rev-parse", "--verify", "HEAD")
    except subprocess.CalledProcessError:
        commit = None
    known = _git(*where, "ls-files", "-z", "--", *files).split("\0")
    # Neither a program of the repository's settings nor colours: the text is for reading and for `git apply`.
    plain = (
        "diff",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--binary",
        *([commit] if commit else []),
    )
    diff = _git(*where, *plain, "--", *files, strip=False)
    return {
        "repository": top.name,
        "commit": commit,
        "files": files,
        "diff": diff if len(diff) <= _LONGEST_DIFF else None,
        "untracked": [file for file in files if file not in known],
    }


def _git(*arguments: str, strip: bool = True) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, timeout=5, check=True)
    text = done.stdout.decode(errors="replace")
    return text.strip() if strip else text
