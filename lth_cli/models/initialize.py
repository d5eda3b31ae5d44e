"""Initial values of convolution, linear and batch-norm parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn

from lth_cli.config import schema
from lth_cli.config.seeds import derive_seed
from lth_cli.models.layers import weights_and_biases


def _binary(weight: Tensor, *, generator: Generator) -> Tensor:
    nn.init.kaiming_normal_(weight, generator=generator)
    return weight.copy_(weight.sign() * weight.std())


def _xavier_truncated(weight: Tensor, *, generator: Generator) -> Tensor:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    std = math.sqrt(1.3 * 2.0 / (fan_in + fan_out))
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std, generator=generator)


def _delta_orthogonal(weight: Tensor, *, generator: Generator) -> Tensor:
    """Convolution weights [out, in, k, ...]: orthogonal [out, in] at the centre, zero elsewhere; linear: orthogonal.

    The centre of k taps is (k - 1) // 2, where padding to the same size leaves an input unmoved.
    """
    centre = weight.zero_()
    for size in weight.shape[2:]:
        centre = centre.select(2, (size - 1) // 2)
    nn.init.orthogonal_(centre, generator=generator)
    return weight


_WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "kaiming_normal": nn.init.kaiming_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "binary": _binary,
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_truncated": _xavier_truncated,
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "delta_orthogonal": _delta_orthogonal,
}


@torch.no_grad()
def initialize(model: nn.Module, settings: schema.Initializer, init_seed: int) -> None:
    """Give parameters their initial values, in place, as a function of the settings and the seed alone.

    With fan_in and fan_out the inputs and outputs of a weight, receptive field included:

    - `kaiming_*`: variance 2 / fan_in (He et al. 2015, arXiv 1502.01852, equation 10), as torch.nn.init and
      open_lth;
    - `binary`: the signs of `kaiming_normal` times the standard deviation of what was drawn for the tensor (open_lth);
    - `xavier_*`: variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 16);
    - `xavier_truncated`: the same from a normal distribution cut off at two of its standard deviations, whose variance
      before the cut is 1.3 times as large, as tf.contrib.layers.xavier_initializer in Frankle & Carbin's code;
    - `orthogonal`: a (semi-)orthogonal matrix times `gain` (Saxe et al. 2014, arXiv 1312.6120), kernels flattened;
    - `delta_orthogonal`: the same for linear layers; of a convolution the centre of the kernel is such a matrix of
      outputs by inputs and the rest zero (Xiao et al. 2018, arXiv 1806.05393, algorithm 1), of each group by itself.
      With no fewer outputs than inputs and circular padding the convolution keeps norms;
    - batch norm `one`, `uniform` or `positivenegative`: scale 1, uniform on [0, 1] or on [-1, 1], shift 0; `oneone`:
      scale and shift 1 (all of open_lth).

    What is set to `default`, and any other parameter, is left as it is.

    Args:
        model: on the CPU; shared parameters are drawn once.
        settings: what to do with weights, biases and batch norm.
        init_seed: decides every draw; the global random state is neither read nor changed.
    """
    generator = torch.Generator().manual_seed(derive_seed(init_seed, "model.initialize"))
    drawn: set[nn.Parameter] = set()
    for module in model.modules():
        weights, biases = weights_and_biases(module)
        if settings.weights != "default":
            for weight in weights:
                if weight not in drawn:
                    _draw(weight, getattr(module, "groups", 1), settings, generator)
                    drawn.add(weight)
        if settings.biases == "zero":
            for bias in biases:
                bias.zero_()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            _initialize_batch_norm(module, settings.batch_norm, generator)


def _draw(weight: Tensor, groups: int, settings: schema.Initializer, generator: Generator) -> None:
    draw = _WEIGHTS[settings.weights]
    # `orthogonal` takes all groups as one matrix, as torch does.
    for part in weight.chunk(groups) if settings.weights == "delta_orthogonal" else (weight,):
        draw(part, generator=generator)
    if settings.gain != 1.0:
        weight.mul_(settings.gain)


def _initialize_batch_norm(module: nn.modules.batchnorm._BatchNorm, how: str, generator: Generator) -> None:
    if how == "default":
        return
    if how in ("uniform", "positivenegative"):
        module.weight.uniform_(0.0 if how == "uniform" else -1.0, 1.0, generator=generator)
    else:
        module.weight.fill_(1.0)
    module.bias.fill_(1.0 if how == "oneone" else 0.0)


def keep_signs(fresh: Mapping[str, Tensor], rewound: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The magnitudes of `fresh` with the signs of `rewound`, where a zero counts as positive.

    Args:
        fresh: newly drawn parameters by name.
        rewound: the parameters whose signs are kept, alike in names and shapes.
    """
    # The sum turns -0.0 into +0.0: stored zeros have one spelling.
    return {name: torch.copysign(weight, rewound[name]) + 0.0 for name, weight in fresh.items()}
