from pathlib import Path

import pytest
import yaml

from lth_cli.config.compose import check_override_syntax, compose, expand, load, packaged_configs, validate
from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.config.targets import check_arguments, locate
from lth_cli.pruning.select import fraction_of
from lth_cli.training import schedules

CONFIGS = packaged_configs()
OPTIONS = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.glob("*/*.yaml"))
# What a person must add where an option leaves something open.
NEEDED = {
    "distillation/kd": ["distillation.teachers=[run:0]"],
    "distillation/maskedkd": ["distillation.teachers=[run:0]"],
    "dataset/image_folder": ["dataset.path=x"],
    "dataset/cifar10_images": ["dataset.path=x"],
    "model/torchvision": ["model.name=resnet18"],
}
SUPPLIED = {
    "dataset": ("place",),
    "model": (
        *("input_shape", "classes", "concepts", "outputs", "vocabulary", "length"),
        *("environments", "states"),
    ),
    "optimizer": ("params",),
    "schedule": ("steps_per_epoch", "horizon", "warmup"),
}


@pytest.mark.parametrize("command", ["train", "prune"])
def test_defaults(command):
    config = load(command, []).config
    assert config.dataset.target == "lth_cli.data.digits.digits"
    assert config.model.arguments == {"hidden": [300, 100]}
    assert (config.optimizer.lr, str(config.training.length), config.training.batch_size) == (
        1.2e-3,
        "40ep",
        60,
    )
    assert (config.pruning.rounds, config.pruning.fraction, str(config.rewind.to)) == (12, 0.2, "0it")


def primary(group):
    """The command whose defaults have a group."""
    for command in ("prune", "rewind"):
        listed = yaml.safe_load((CONFIGS / f"{command}.yaml").read_text())["defaults"]
        if command == "prune" or any(isinstance(entry, dict) and group in entry for entry in listed):
            defaults = [*listed, *yaml.safe_load((CONFIGS / "defaults.yaml").read_text())["defaults"]]
            if any(isinstance(entry, dict) and group in entry for entry in defaults):
                return command
    raise AssertionError(f"no command has the group {group}")


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.startswith(("analysis/", "study/"))])
def test_every_option_composes_and_its_functions_take_its_keys(option):
    group, name = option.split("/")
    config = load(primary(group), [f"{group}={name}", *NEEDED.get(option, [])]).config
    if group in SUPPLIED:
        section = getattr(config, group)
        given = {"lr": section.lr} if group == "optimizer" else {}
        arguments = {
            key: tuple(value) if group == "optimizer" and isinstance(value, list) else value
            for key, value in (given | section.arguments).items()
        }
        check_arguments(locate(section.target, group), arguments, group, SUPPLIED[group])


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("experiment/")])
def test_every_experiment_says_where_it_is_from_and_how_to_run_it(option):
    text = (CONFIGS / f"{option}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert f"lth prune experiment={option.split('/')[1]}" in text
    config = load("prune", [option.replace("/", "=")]).config
    assert config.pruning.rounds > 0


def test_every_option_is_a_mapping_of_known_groups():
    groups = {option.split("/")[0] for option in OPTIONS}
    named = {
        "dataset",
        "distillation",
        "experiment",
        "model",
        "optimizer",
        "precision",
        "pruning",
        "rewind",
        "schedule",
    }
    assert named <= groups
    for option in OPTIONS:
        assert isinstance(yaml.safe_load((CONFIGS / f"{option}.yaml").read_text()), dict), option


def test_published_numbers():
    """Table 1 of Frankle et al. 2020 and figure 2 of Frankle & Carbin 2019, as in their configs."""
    lenet = load("prune", ["experiment=lmc_lenet_mnist"]).config
    assert (str(lenet.training.length), lenet.training.batch_size, lenet.optimizer.lr) == (
        "24000it",
        60,
        1.2e-3,
    )
    assert lenet.optimizer.target == "torch.optim.Adam"
    assert 0.8**lenet.pruning.rounds == pytest.approx(0.035, abs=5e-4)
    resnet = load("prune", ["experiment=lmc_resnet20_cifar10"]).config
    assert (str(resnet.training.length), resnet.training.batch_size, resnet.optimizer.lr) == (
        "63000it",
        128,
        0.1,
    )
    assert resnet.schedule.arguments == {"milestones": ["32000it", "48000it"], "gamma": 0.1}
    assert 0.8**resnet.pruning.rounds == pytest.approx(0.168, abs=5e-4)
    warm = load("prune", ["experiment=lmc_resnet20_cifar10_warmup"]).config
    assert (warm.optimizer.lr, str(warm.schedule.warmup)) == (0.03, "30000it")
    carbin = load("prune", ["experiment=frankle_lenet_mnist"]).config
    assert (carbin.pruning.allocation, carbin.pruning.layer_fractions) == ("layerwise", {"output": 0.1})
    assert (carbin.model.init.weights, str(carbin.training.length)) == ("xavier_truncated", "50000it")


def test_numbers_of_released_code():
    """Renda et al.'s and Paul et al.'s configs; the fractions of Conv-6; the troughs of Portes et al."""
    renda = load("prune", ["experiment=renda_resnet20_cifar10"]).config
    assert renda.schedule.arguments["milestones"] == ["35546it", "53125it"]
    assert (str(renda.rewind.to), renda.optimizer.arguments["nesterov"]) == ("4701it", False)
    assert (int(50_000 / 128 * 91), int(50_000 / 128 * 136)) == (35546, 53125)
    for year, pretrained in (("2022", "200it"), ("2023", "2000it")):
        paul = load("prune", [f"experiment=paul{year}_resnet20_cifar10"]).config
        assert (str(paul.training.length), paul.training.drop_last) == ("62400it", True)
        assert 62_400 == 160 * (50_000 // 128)
        assert paul.schedule.arguments["milestones"] == ["31200it", "46800it"]
        assert str(paul.pretrain.length) == pretrained
    conv = load("prune", ["experiment=frankle_conv6_cifar10"]).config
    rates = {
        name: fraction_of(conv.pruning, name, ["fc.weight", "fc.bias"])
        for name in ("conv_layers.5.weight", "fc_layers.0.weight", "fc.weight")
    }
    assert list(rates.values()) == [0.15, 0.2, 0.1]
    portes = load("train", ["experiment=portes_resnet50_imagenet"]).config
    factor, _ = schedules.build(portes.schedule, steps_per_epoch=100, horizon=51_200)
    assert [factor(100 * trough.epochs) for trough in portes.checkpoint.keep] == [1.0] * 5
    assert max(factor(100 * trough.epochs - 1) for trough in portes.checkpoint.keep) < 1e-5


def test_an_override_on_top_of_an_experiment_wins():
    config = load("prune", ["experiment=lmc_resnet20_cifar10", "model=resnet32", "optimizer.lr=0.05"]).config
    assert (config.model.arguments["depth"], config.optimizer.lr, config.optimizer.arguments["momentum"]) == (
        32,
        0.05,
        0.9,
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainin.length=5it"], "trainin.length: unknown key; close to it: training.length"),
        (["training.lenght=5it"], "close to it: training.length"),
        (["+training.lenght=5it"], "training.lenght: unknown key; close to it: training.length"),
        (["model=resnet21"], "model: there is no option 'resnet21' (did you mean model="),
        (["experiment=nothing"], "experiment: there is no option 'nothing'; accepted: "),
        (["rounds"], "'rounds': is not an override; write KEY=VALUE"),
        (["seed=["], "'seed=[': is not an override"),
        (["=3"], "'=3': names no key; write KEY=VALUE"),
        (["hydra.run.dir=/tmp"], "'hydra.run.dir=/tmp': cannot be set from here"),
        (["hydra/launcher=x"], "'hydra/launcher=x': cannot be set from here"),
        (["model=3"], "model: is a config group; it takes the name of one option"),
        (["model=null"], "model: is a config group"),
        (["model=[conv2,conv4]"], "model: is a config group"),
        (["dataset=image_folder"], "dataset.path: needs a value"),
        (["model=torchvision"], "model.name: needs a value"),
        (["seed=${nothing}"], "seed: Interpolation key 'nothing' not found"),
        (["~training.length"], "training.length: is required"),
        (["training=null"], "training: "),
        (["seed="], "seed: "),
        (["seed=a", "training.batch_size=x"], "seed: Input should be a valid integer, unable"),
    ],
)
def test_wrong_requests_name_the_path_and_what_would_do(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load("prune", overrides)
    if message.endswith("unable"):
        message = message.removesuffix(", unable")
        assert "training.batch_size: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n\n" not in str(caught.value)


def test_all_broken_overrides_at_once():
    with pytest.raises(ConfigError) as caught:
        check_override_syntax(["seed=1", "a b", "=", "hydra.x=1", "model=2"])
    assert len(caught.value.problems) == 4


def test_environment_variables(monkeypatch):
    monkeypatch.setenv("LTH_RUNS_DIR", "/elsewhere")
    monkeypatch.setenv("LTH_DATA_ROOT", "/data")
    config = load("train", []).config
    assert (config.runs_dir, config.data.root) == ("/elsewhere", "/data")
    assert load("train", ["runs_dir=here", "data.root=null"]).config.runs_dir == "here"


def test_a_folder_of_ones_own_adds_and_shadows(tmp_path: Path):
    for group, name, text in [
        ("model", "tiny", "_target_: lth_cli.models.mlp.MLP\nhidden: [3]\n"),
        ("model", "lenet_300_100", "_target_: lth_cli.models.mlp.MLP\nhidden: [30, 10]\n"),
        ("experiment", "mine", "# @package _global_\ndefaults:\n  - override /model: tiny\nseed: 5\n"),
    ]:
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
    assert load("prune", [], tmp_path).config.model.arguments == {"hidden": [30, 10]}
    assert load("prune", ["model=tiny"], tmp_path).config.model.arguments == {"hidden": [3]}
    mine = load("prune", ["experiment=mine"], tmp_path).config
    assert (mine.model.arguments, mine.seed) == ({"hidden": [3]}, 5)
    assert load("prune", ["model=conv2"], tmp_path).config.model.arguments == {"depth": 2}
    assert load("prune", []).config.model.arguments == {"hidden": [300, 100]}, "forgotten afterwards"
    with pytest.raises(RequestError, match="no folder"):
        load("prune", [], tmp_path / "missing")


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1\n",
        b"a: 1\na: 2\n",
        b"\xff\xfe",
        b"- 1\n",
        b"defaults:\n  - nowhere\n",
        b"hidden: ${oc.env:NO}\n",
    ],
)
def test_a_broken_file_of_ones_own_is_a_wrong_request(tmp_path: Path, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "broken.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        load("prune", ["model=broken"], tmp_path)


def test_a_primary_config_of_ones_own(tmp_path: Path):
    (tmp_path / "paper.yaml").write_text("defaults:\n  - defaults\n  - _self_\nseed: 9\n")
    assert load("paper", ["seeds.init=1"], tmp_path).config.seed == 9
    with pytest.raises(ConfigError, match="nowhere"):
        load("nowhere", [])


def test_a_sweep_is_the_product_of_its_choices():
    assert expand(["seed=0,1", "a.b=range(3)", "c=x"]) == [
        (f"seed={seed}", f"a.b={b}", "c=x") for seed in (0, 1) for b in (0, 1, 2)
    ]
    assert expand(["c=choice(x,y)"]) == [("c=x",), ("c=y",)]
    assert expand(["model=conv2,conv4"]) == [("model=conv2",), ("model=conv4",)]
    assert expand(["training.length=1ep,2ep"]) == [("training.length=1ep",), ("training.length=2ep",)]
    assert expand(["l=[1,2]"]) == [("l=[1,2]",)]
    assert expand([]) == [()]
    with pytest.raises(ConfigError, match="10000 points"):
        expand(["a=range(101)", "b=range(100)"])


def test_composing_gives_plain_values():
    values = compose("prune", ["dataset.validation=0.1"])
    assert type(values["dataset"]) is dict
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert validate(values).dataset.validation == 0.1
