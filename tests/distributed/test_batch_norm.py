"""Synchronised batch normalisation: gradients and statistics of three processes are those of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from lth_cli.data.batches import Part
from lth_cli.training.batch_norm import SynchronizedBatchNorm, synchronize

PROGRAM = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
import test_batch_norm
rank, size = int(sys.argv[3]), int(sys.argv[4])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2] + "/store", rank=rank, world_size=size)
made = test_batch_norm.trained(rank, size)
if rank == 0:
    torch.save(made, sys.argv[2] + "/made.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers, nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3)).double()


def trained(rank: int, size: int) -> dict[str, torch.Tensor]:
    """Gradients and buffers after batches of 7 and 2 examples, which three processes cannot share evenly."""
    model = network()
    layers = synchronize(model) if size > 1 else []
    for count in (7, 2):
        inputs = torch.randn(count, 2, 6, 6, dtype=torch.float64)
        labels = torch.arange(count) % 3
        start, stop = Part(rank, size).bounds(count)
        for layer in layers:
            layer.counts = start < stop
        rows = Part(rank, size).rows(count)
        (functional.cross_entropy(model(inputs[rows]), labels[rows]) * ((stop - start) / count)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if size > 1:
        for gradient in gradients.values():
            torch.distributed.all_reduce(gradient)
    return gradients | dict(model.named_buffers())


def test_three_processes_are_one(tmp_path):
    command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(tmp_path)]  # noqa: PTH120
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([*command, str(rank), "3"], env=environment) for rank in range(3)]
    try:
        assert [process.wait(60) for process in ranks] == [0, 0, 0]
    finally:
        for process in ranks:
            process.kill()
    made, expected = torch.load(tmp_path / "made.pt"), trained(0, 1)
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-10, atol=1e-12)


def test_the_layers_keep_names_settings_and_evaluation():
    plain, model = network(), network()
    layers = synchronize(model)
    assert [type(layer) for layer in layers] == [SynchronizedBatchNorm] * 2
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in plain.named_buffers()]
    inputs = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    assert torch.equal(model.eval()(inputs), plain.eval()(inputs))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="at least two dimensions"):
        synchronize(nn.Sequential(nn.BatchNorm1d(3)))[0](torch.zeros(3))
