"""Where and in what arithmetic training runs: device, threads, number formats."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError


@dataclass(frozen=True)
class Execution:
    """The execution mode of a run; all of it can change rounding.

    Attributes:
        device: resolved device.
        threads: compute threads on the CPU.
        dtype: fp32, tf32 or bf16 (autocast; weights stay fp32).
        channels_last: memory layout of four-dimensional inputs and convolution weights.
        processes: how many train together.
        batch_norm: whose examples its statistics are of, `local` or `synchronized`; of no meaning to one process.
        graphs: whether CUDA graphs may be used, which change no byte.
    """

    device: torch.device
    threads: int
    dtype: str
    channels_last: bool
    processes: int = 1
    batch_norm: str = "local"
    graphs: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        """What enters a trajectory's identity; threads only where they compute, processes where there are several."""
        cpu = self.device.type == "cpu"
        several = {"processes": self.processes, "batch_norm": self.batch_norm} if self.processes > 1 else {}
        return {
            "device": self.device.type,
            "threads": self.threads if cpu else None,
            "dtype": self.dtype,
            "channels_last": self.channels_last,
            **several,
        }

    def set_up(self) -> None:
        """Set this process up for repeatable arithmetic, once for all."""
        # Momentum of dead units decays into denormal numbers, which CPUs multiply many times slower than zeros.
        torch.set_flush_denormal(True)
        if self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)
            # A kernel more for every tensor that is made, to find reads of memory that nobody wrote.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.activate()

    def of_rank(self, local_rank: int, local_processes: int) -> Execution:
        """The same in another of the processes that train together, on a device of its own. Raises ConfigError."""
        device = _device_of_rank(
            torch.device(self.device.type), self.device.type, local_rank, local_processes
        )
        return dataclasses.replace(self, device=device)

    def activate(self) -> None:
        """Set this process to the threads and formats: a run may advance trainings of two execution modes."""
        torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = self.dtype == "tf32"
        torch.backends.cudnn.allow_tf32 = self.dtype == "tf32"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which forward passes run."""
        if self.dtype == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the configured layout."""
        model = model.to(self.device)
        if not self.channels_last:
            return model
        if self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
            _spare_strided(model)
        return model.to(memory_format=torch.channels_last)

    def arrange(self, inputs: Tensor) -> Tensor:
        """Put a batch of images into the configured layout."""
        if self.channels_last and inputs.ndim == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs


def _spare_strided(model: nn.Module) -> None:
    """Let strided 1 x 1 convolutions of few channels leave out the places in between by themselves.

    In channels-last layout, the backward pass of oneDNN for AVX2 (torch 2.14) writes beyond its buffers where such a
    convolution has fewer than 8 input channels, which ends the process sooner or later.
    """
    for module in model.modules():
        if type(module) is not nn.Conv2d or module.kernel_size != (1, 1) or module.padding != (0, 0):
            continue
        if module.stride != (1, 1) and module.in_channels // module.groups < 8:
            down, across = module.stride
            module.stride = (1, 1)
            module.register_forward_pre_hook(
                lambda _, given, down=down, across=across: (given[0][..., ::down, ::across],)
            )


def resolve(config: schema.Config, local_rank: int = 0, local_processes: int | None = None) -> Execution:
    """Settle `auto`, check that the device is there, and set the process up for repeatable arithmetic.

    Args:
        config: what is asked for.
        local_rank: number on this machine among the processes that train together; it chooses the GPU.
        local_processes: how many of them are on this machine; all when None.

    Raises:
        ConfigError: naming `device`, `threads` or `precision.dtype` when this machine cannot do what is asked.
    """
    device, processes = _device(config.device), config.distributed.processes
    if processes > 1:
        device = _device_of_rank(device, config.device, local_rank, local_processes or processes)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = (
        max(1, available // (local_processes or processes)) if config.threads == "auto" else config.threads
    )
    dtype = config.precision.dtype
    if dtype == "tf32" and device.type != "cuda":
        raise ConfigError(
            ("precision.dtype", f"tf32 needs a CUDA device, not {device.type}; accepted here: fp32, bf16")
        )
    if dtype == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(("precision.dtype", "this GPU has no bf16; accepted here: fp32, tf32"))
    execution = Execution(
        device,
        threads,
        dtype,
        config.precision.channels_last,
        processes,
        config.distributed.batch_norm,
        config.cuda_graphs,
    )
    execution.set_up()
    return execution


def _device_of_rank(device: torch.device, asked: str, local_rank: int, processes: int) -> torch.device:
    """The device of one of several processes on this machine."""
    if device.type == "cuda" and processes > torch.cuda.device_count():
        message = f"{processes} need a GPU each, and this machine has {torch.cuda.device_count()}"
        raise ConfigError(("distributed.processes", f"{message}; device=cpu trains without"))
    if device.type == "mps":
        raise ConfigError(
            ("device", "mps trains in one process; accepted with distributed.processes: cpu, cuda")
        )
    if device.type == "cuda" and device.index:
        message = f"{asked} is one GPU; write cuda, and CUDA_VISIBLE_DEVICES=... for which ones"
        raise ConfigError(("device", f"{message} distributed.processes share"))
    return torch.device("cuda", local_rank) if device.type == "cuda" else device


def _device(asked: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(asked)
    here = [
        "cpu",
        *(["mps"] if mps else []),
        *(f"cuda:{i}" for i in range(torch.cuda.device_count() if cuda else 0)),
    ]
    missing = (device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count())) or (
        device.type == "mps" and not mps
    )
    if missing:
        raise ConfigError(
            ("device", f"there is no {asked} on this machine; accepted here: auto, {', '.join(here)}")
        )
    return device
