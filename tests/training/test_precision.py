import pytest
import torch

from lth_cli.config.compose import load
from lth_cli.config.errors import ConfigError
from lth_cli.training import precision

here = pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU here"
)


def resolve(*overrides):
    return precision.resolve(load("train", list(overrides)).config)


@here
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["device=cuda"], "device: there is no cuda on this machine; accepted here: auto, cpu"),
        (["device=cuda:3"], "device: there is no cuda:3 on this machine; accepted here: auto, cpu"),
        (["device=mps"], "device: there is no mps on this machine; accepted here: auto, cpu"),
        (["precision=tf32"], "precision.dtype: tf32 needs a CUDA device, not cpu; accepted here: fp32, bf16"),
    ],
)
def test_what_this_machine_cannot_do(overrides, message):
    with pytest.raises(ConfigError) as caught:
        resolve(*overrides)
    assert str(caught.value) == message


@here
def test_auto_takes_what_is_there():
    assert resolve("threads=1").device == torch.device("cpu")


def test_threads_are_settled_and_part_of_the_identity():
    execution = resolve("device=cpu", "threads=2")
    assert (execution.threads, torch.get_num_threads()) == (2, 2)
    assert execution.identity == {"device": "cpu", "threads": 2, "dtype": "fp32", "channels_last": True}
    assert resolve("device=cpu", "threads=1").identity != execution.identity
    assert resolve("device=cpu").threads >= 1
    resolve("device=cpu", "threads=1")


def test_strided_convolutions_of_few_channels_leave_out_places(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    execution = resolve("device=cpu", "threads=1")
    thin, wide = torch.nn.Conv2d(3, 4, 1, stride=2), torch.nn.Conv2d(8, 4, 1, stride=2)
    images = torch.randn(2, 3, 7, 8)
    expected = thin(images)
    spared = execution.place(torch.nn.Sequential(thin))
    torch.testing.assert_close(spared(execution.arrange(images)), expected)
    for _ in range(30):
        spared(execution.arrange(images)).sum().backward()
    assert execution.place(spared) is spared and spared(execution.arrange(images)).shape == expected.shape
    execution.place(wide)
    assert thin.stride == (1, 1) and wide.stride == (2, 2)


def test_layouts():
    execution = resolve("device=cpu", "threads=1")
    images = torch.zeros(2, 3, 4, 4)
    assert execution.arrange(images).is_contiguous(memory_format=torch.channels_last)
    assert execution.arrange(torch.zeros(2, 5)).shape == (2, 5)
    plain = resolve("device=cpu", "threads=1", "precision.channels_last=false")
    assert plain.arrange(images) is images
