"""Meta-learning of a start for images as functions of coordinates, against the same written out in loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Spec
from lth_cli.models.siren import Siren
from lth_cli.objectives.meta_fit import MetaFit

RATE = 0.05


def written_out(model, masks, images, steps):
    """As the authors' loops (MetaSparseINR at its head): tasks one by one, masks on the weights, graphs kept."""
    height, width = images.shape[2:]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    places = torch.stack([rows, columns], -1).view(-1, 2)
    names = [name for name, _ in model.named_parameters()]
    outer = torch.tensor(0.0)
    for image in images:
        weights = [weight for _, weight in model.named_parameters()]

        def colours(weights, places=places):
            masked = {name: w * masks.get(name, 1) for name, w in zip(names, weights, strict=True)}
            return torch.func.functional_call(model, masked, (places,))

        target = image.permute(1, 2, 0).reshape(-1, image.shape[0])
        for _ in range(steps):
            loss = nn.functional.mse_loss(colours(weights), target)
            slopes = torch.autograd.grad(loss, weights, create_graph=True)
            weights = [weight - RATE * slope for weight, slope in zip(weights, slopes, strict=True)]
        outer = outer + nn.functional.mse_loss(colours(weights), target)
    return outer / len(images)


def net():
    torch.manual_seed(0)
    return Siren(input_shape=(2,), outputs=3, hidden=12, depth=2, w0=5.0, biases_as_weights=True).double()


@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_second_order_gradients_are_those_of_loops(masked):
    model, images = net(), torch.rand(3, 3, 5, 4, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        masks = {}
        if masked:
            masks = {
                name: (torch.rand_like(w) < 0.5).double()
                for name, w in model.named_parameters()
                if w.ndim > 1
            }
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.mul_(masks.get(name, 1))
        expected = written_out(model, masks, images, steps=2)
        wanted = torch.autograd.grad(expected, list(model.parameters()))
        objective, batch = MetaFit(steps=2, rate=RATE), {"inputs": images}
        loss = objective.loss(objective.outputs(model, batch), batch)
        found = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close(loss, expected)
        for (name, _), gradient, other in zip(model.named_parameters(), found, wanted, strict=True):
            kept = masks.get(name, torch.tensor(1.0))
            torch.testing.assert_close(gradient * kept, other * kept)
    finally:
        torch.set_default_dtype(torch.float32)


def test_evaluation_fits_and_measures_each_image_by_itself():
    model, objective = net().float().eval(), MetaFit(steps=1, rate=RATE, evaluation_steps=4)
    images = torch.rand(4, 3, 6, 6)
    with torch.no_grad():
        outputs = objective.outputs(model, {"inputs": images})
        alone = objective.outputs(model, {"inputs": images[2:3]})
        totals = objective.measure(outputs, {"inputs": images})
        before = model(torch.cartesian_prod(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 6)))
    torch.testing.assert_close(outputs[2:3], alone)
    errors = (outputs - images.flatten(2).transpose(1, 2)).square().mean((1, 2))
    assert float(totals["psnr"]) == pytest.approx(float((-10 * errors.log10()).sum()), rel=1e-5)
    assert errors.mean() < (before - images.flatten(2).transpose(1, 2)).square().mean()


def test_what_is_no_image_is_refused():
    spec = Spec({"inputs": (8,), "targets": (2,)}, {"inputs": "float32", "targets": "float32"}, {})
    with pytest.raises(ConfigError, match="is of images"):
        MetaFit().interface(spec)
