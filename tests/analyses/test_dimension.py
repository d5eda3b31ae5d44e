"""Intrinsic dimension by nearest neighbours: a value by hand, and data whose dimension is known."""

import math

import pytest
import torch

from lth_cli.analyses.dimension.study import dimension, inverse_dimensions
from lth_cli.config.errors import ConfigError
from lth_cli.data.latent import latent


def test_a_point_by_hand():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [4.0, 0.0]], dtype=torch.float64)
    # Of the first point: distances 1, 2 and 4.
    expected = (math.log(4 / 1) + math.log(4 / 2)) / 2
    assert float(inverse_dimensions(points, 3)[0]) == pytest.approx(expected)


@pytest.mark.parametrize("true", [1, 3])
def test_uniform_points_of_a_known_dimension(true):
    points = torch.rand(1500, true, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = points @ torch.randn(true, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert dimension(seen, 10) == pytest.approx(true, rel=0.15)


def test_the_generator_makes_data_of_its_dimension():
    found = [
        dimension(latent(None, dimension=d, num_samples=1200).train_inputs.double(), 10) for d in (1, 4, 16)
    ]
    assert found[0] == pytest.approx(1, rel=0.2)
    assert found[0] < found[1] < found[2]
    arrays = latent(None, dimension=4, num_samples=100)
    assert (arrays.train_inputs.shape, arrays.test_labels.shape) == ((80, 64), (20,))
    assert torch.equal(arrays.train_inputs, latent(None, dimension=4, num_samples=100).train_inputs)
    with pytest.raises(ConfigError, match="more than the 8 values"):
        latent(None, dimension=9, values=8)


def test_it_is_asked_of_a_run(lth, small):
    assert lth("train", *small, "name=a").code == 0
    done = lth("analyze", "a", "analysis=dimension", "analysis.neighbours=[3,5]")
    assert done.code == 0, done.err
    assert "intrinsic dimension" in done.out and "64 values" in done.out
    refused = lth("analyze", "a", "analysis=dimension", "analysis.neighbours=[999]")
    assert refused.code != 0 and "distinct training examples" in refused.err
