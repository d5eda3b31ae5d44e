"""Building from a config: determinism, fit to the data set, and questions about a module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from lth_cli.config import schema
from lth_cli.config.errors import ConfigError
from lth_cli.config.spec import Interface
from lth_cli.models.build import build, has_randomness, new_head, output_layer, output_tensors, prunable

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
INPUTS = {"lenet_300_100": (1, 28, 28), "lenet5": (1, 28, 28), "residual_mlp": (40,), "mlp": (2, 3, 4)}
OUTPUTS = {
    "concept_bottleneck": "head",
    "deit_base": "head",
    "deit_small": "head",
    "deit_tiny": "head",
    "equations": "coefficients",
    "forward_forward": "layers.1",
    "residual_mlp": "linear3",
    "gpt": "head",
    "siren": "out",
    "vit_small": "head",
}
NO_CLASSIFIERS = {
    "concept_bottleneck": Interface((5,), "float32", (13,), {"classes": 10, "concepts": 3}),
    "equations": Interface((3, 2), "float32", (3, 2), {"environments": 3, "states": 2}),
    "gpt": Interface((5,), "int64", (5, 7), {"vocabulary": 7, "length": 5}),
    "siren": Interface((2,), "float32", (3,), {"outputs": 3}),
}


def load(name: str, /, **overrides: object) -> schema.Model:
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml"), overrides)
    return schema.Model.model_validate(OmegaConf.to_container(config, throw_on_missing=True))


def own(name: str, **arguments: object) -> schema.Model:
    return schema.Model.model_validate({"_target_": f"{__name__}.{name}", **arguments})


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Affine(nn.Module):
    """Takes the shape only; its forward changes a buffer even in evaluation."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int = 3, frozen: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.norm.training = not frozen
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.norm(self.linear(x))


def any_keywords(**arguments: object) -> nn.Module:
    return nn.Linear(arguments["input_shape"][0], arguments["classes"])


def no_keywords(bias: bool = True) -> nn.Module:
    return nn.Linear(4, 3, bias=bias)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.Linear(5, 3))


def not_a_module(classes: int) -> int:
    return classes


def raises() -> nn.Module:
    raise RuntimeError("first line\nsecond line")


class Pair(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x), x


ELSEWHERE = (
    *("bert", "gpt2", "llama", "minilm", "opt"),  # of transformers; tests/language has them
    "condensed",  # tests/training/test_condensing.py
)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(ELSEWHERE))
)
def test_every_config_builds_on_a_fitting_input(name):
    overrides = {"name": "squeezenet1_1"} if name == "torchvision" else {}
    config = load(name, **overrides)
    classifier = Interface.classifier(INPUTS.get(name, (3, 32, 32)), 10)
    model = build(config, NO_CLASSIFIERS.get(name, classifier), init_seed=0)
    assert model.training
    assert all(module.training for module in model.modules())
    names = prunable(model, biases=False)
    expected = [
        f"{layer}.weight"
        for layer, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    assert names == expected
    assert output_layer(model) == ("classifier.1" if name == "torchvision" else OUTPUTS.get(name, "fc"))
    assert names[-1] == f"{output_layer(model)}.weight"
    assert has_randomness(model) == (name == "torchvision")


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("mlp", {}),
        ("mlp", {"weights": "default"}),
        ("conv2", {}),
        ("resnet20", {}),
        ("resnet20", {"weights": "orthogonal"}),
    ],
)
def test_the_same_seed_gives_the_same_bytes(name, init):
    config = load(name, init=init)
    model = build(config, Interface.classifier((1, 8, 8), 10), init_seed=5)
    torch.manual_seed(1)
    assert same(model, build(config, Interface.classifier((1, 8, 8), 10), init_seed=5))
    other = build(config, Interface.classifier((1, 8, 8), 10), init_seed=6)
    for parameter in prunable(model, biases=False):
        assert not torch.equal(model.get_parameter(parameter), other.get_parameter(parameter)), parameter


def test_global_random_state_is_untouched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    build(load("mlp", init={"weights": "default"}), Interface.classifier((4,), 3), init_seed=0)
    with pytest.raises(ConfigError):
        build(own("Pair"), Interface.classifier((4,), 3), init_seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_trial_run_leaves_buffers_and_training_modes():
    model = build(own("Affine"), Interface.classifier((4,), 3), init_seed=0)
    assert model.calls == 0
    assert model.training and model.linear.training
    assert not model.norm.training


def test_batch_statistics_are_those_of_no_data():
    model = build(load("resnet20"), Interface.classifier((3, 8, 8), 10), init_seed=0)
    assert not model.bn.running_mean.any()
    assert (model.bn.running_var == 1).all()
    assert model.bn.num_batches_tracked == 0


@pytest.mark.parametrize("name", ["any_keywords", "no_keywords", "lazy"])
def test_a_function_gets_the_keywords_it_takes(name):
    model = build(own(name), Interface.classifier((4,), 3), init_seed=0)
    assert model.eval()(torch.zeros(2, 4)).shape == (2, 3)
    assert same(model, build(own(name), Interface.classifier((4,), 3), init_seed=0))


def test_own_keys_are_arguments():
    assert prunable(
        build(own("no_keywords", bias=False), Interface.classifier((4,), 3), init_seed=0), biases=True
    ) == ["weight"]


@pytest.mark.parametrize(
    ("config", "input_shape", "message"),
    [
        (own("missing"), (4,), r"model\._target_: .* has no 'missing'"),
        (own("no_keywords", bais=False), (4,), r"model\.bais: unknown key; did you mean 'bias'"),
        (own("no_keywords", input_shape=[4]), (4,), r"model\.input_shape: unknown key"),
        (own("not_a_module"), (4,), r"model\._target_: .*not_a_module returned int, not a torch\.nn\.Module"),
        (
            own("raises"),
            (4,),
            r"model: .*raises cannot be built for the data set .*: first line \(.*test_build\.py:\d+\)$",
        ),
        (own("Pair"), (4,), r"model: .*Pair gives tuple for two examples .*\(2, 3\) are needed"),
        (
            own("no_keywords"),
            (5,),
            r"model: .*no_keywords does not fit the data set \(inputs of shape \(5,\), ",
        ),
        (own("Affine", outputs=4), (4,), r"model: .*Affine gives shape \(2, 4\) .*\(2, 3\) are needed"),
        (load("mlp", hidden=[0]), (4,), r"model\.hidden\.0: .*greater than 0"),
        (load("conv2", depth=3), (1, 8, 8), r"model\.depth: Input should be 2, 4 or 6"),
        (load("resnet20", depth=21), (1, 8, 8), r"model\.depth: .*6n \+ 2"),
        (load("resnet20", shortcut="C"), (1, 8, 8), r"model\.shortcut: Input should be 'A' or 'B'"),
        (load("vgg16"), (1, 8, 8), r"model: VGG-16 takes images .*16 x 16.*\(1, 8, 8\)"),
        (load("wide_resnet", dropout=1.0), (1, 8, 8), r"model\.dropout: .*less than 1"),
        (load("torchvision", name="vit_b_16"), (3, 16, 16), r"model: .*Wrong image height"),
        (load("torchvision", name="resnet18", widht=3), (3, 32, 32), r"model: .*'widht'"),
    ],
)
def test_a_model_that_does_not_fit_is_one_clear_message(config, input_shape, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(config, Interface.classifier(input_shape, 3), init_seed=0)
    assert len(str(caught.value).splitlines()) == 1


def test_prunable_with_biases_follows_each_weight():
    model = build(load("conv2"), Interface.classifier((1, 4, 4), 3), init_seed=0)
    layers = ["conv_layers.0", "conv_layers.1", "fc_layers.0", "fc_layers.1", "fc"]
    assert prunable(model, biases=True) == [
        f"{layer}.{part}" for layer in layers for part in ("weight", "bias")
    ]


def test_batch_norm_is_not_prunable():
    model = build(load("resnet20"), Interface.classifier((3, 8, 8), 10), init_seed=0)
    names = prunable(model, biases=True)
    assert len([name for name in names if name.endswith("weight")]) == 22
    assert [name for name in names if name.endswith("bias")] == ["fc.bias"]


def test_prunable_attention():
    joined, separate = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4, vdim=4)
    model = nn.ModuleDict({"joined": joined, "separate": separate})
    assert prunable(model, biases=False) == [
        "joined.in_proj_weight",
        "joined.out_proj.weight",
        "separate.q_proj_weight",
        "separate.k_proj_weight",
        "separate.v_proj_weight",
        "separate.out_proj.weight",
    ]
    assert "joined.in_proj_bias" in prunable(model, biases=True)


def test_prunable_lists_shared_parameters_once_by_their_first_name():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    model[2].weight = model[0].weight
    model.append(model[1])
    assert prunable(model, biases=False) == ["1.weight", "0.weight"]


def test_output_tensors_go_by_the_names_that_pruning_uses():
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    tied[2].weight = tied[0].weight
    assert output_tensors(tied) == ["0.weight", "2.bias"]
    assert output_tensors(nn.Linear(2, 2, bias=False)) == ["weight"]


def test_prunable_takes_subclasses_and_leaves_computed_weights():
    model = nn.Sequential(
        nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), Pair(), nn.Linear(2, 2), nn.Bilinear(2, 2, 2)
    )
    torch.nn.utils.parametrizations.weight_norm(model[3])
    assert prunable(model, biases=False) == ["0.weight", "1.weight", "2.weight"]


def test_output_layer_of_a_bare_layer_and_of_none():
    assert output_layer(nn.Linear(2, 2)) == ""
    assert output_layer(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1))) == "0"
    with pytest.raises(ConfigError, match="no convolution or linear layer"):
        output_layer(nn.ReLU())


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.Dropout2d(0.1), True),
        (nn.AlphaDropout(0.1), True),
        (nn.RReLU(), True),
        (nn.PairwiseDistance(p=2.0), False),
        (nn.BatchNorm2d(3), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.1), True),
        (nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0), False),
        (torchvision.ops.StochasticDepth(0.1, "row"), True),
        (torchvision.ops.StochasticDepth(0.0, "row"), False),
        (torchvision.models.DenseNet(4, (1, 1), 8, drop_rate=0.1), True),
        (Pair(), True),
    ],
)
def test_has_randomness(module, expected):
    assert has_randomness(nn.Sequential(nn.Linear(2, 2), module)) == expected


def test_has_randomness_agrees_with_watching_the_generator():
    for name in ("mlp", "lenet5", "conv2", "resnet20"):
        model = build(load(name), Interface.classifier((1, 12, 12), 3), init_seed=0)
        before = torch.get_rng_state()
        model(torch.zeros(2, 1, 12, 12))
        assert has_randomness(model) != torch.equal(torch.get_rng_state(), before)


def normed_scores(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], classes), nn.BatchNorm1d(classes))


def test_only_an_output_layer_can_be_drawn_anew() -> None:
    before, after = (Interface.classifier((1, 28, 28), classes) for classes in (3, 10))
    assert new_head(load("lenet_300_100"), before, after, where="x") == ("fc.bias", "fc.weight")
    before, after = (Interface.classifier((4,), classes) for classes in (3, 10))
    with pytest.raises(ConfigError, match=r"^here: .*output layer 0 that changes 1\.bias, 1\.running_mean"):
        new_head(own("normed_scores"), before, after, where="here")
