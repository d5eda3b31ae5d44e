"""What a run notes about where it ran."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from lth_cli.config.schema import Config


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


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
