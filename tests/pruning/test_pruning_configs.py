import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lth_cli.config.schema import Pruning
from lth_cli.pruning.scores import check_score, locate_score

FOLDER = Path(__file__).parents[2] / "configs"


def load(option):
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose(overrides=[f"+pruning={option}"])
    return Pruning.model_validate(OmegaConf.to_container(config.pruning))


@pytest.mark.parametrize("path", sorted((FOLDER / "pruning").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_pruning_config_is_valid_and_commented(path):
    check_score(load(path.stem), 10)
    for line in path.read_text().splitlines():
        structural = line.endswith(":") or line.lstrip().startswith("- ")
        assert structural or "#" in line, line


def test_magnitude_writes_out_every_default():
    assert load("magnitude") == Pruning(rounds=12)
    text = (FOLDER / "pruning" / "magnitude.yaml").read_text()
    assert set(OmegaConf.create(text)) == set(Pruning.model_fields)


def test_layerwise_magnitude_prunes_the_output_layer_at_half_rate():
    assert load("layerwise_magnitude") == Pruning(
        rounds=12, allocation="layerwise", output_layer="prune", layer_fractions={"output": 0.1}
    )


@pytest.mark.parametrize("name", ["saliency", "snip", "grasp", "synflow", "fisher", "gradient_times_weight"])
def test_scores_write_out_every_argument_and_its_default(name):
    keywords = inspect.signature(locate_score(name)).parameters.values()
    options = {one.name: one.default for one in keywords if one.default is not one.empty}
    iterations = 100 if name == "synflow" else 1
    base = load("at_init" if name in ("snip", "grasp", "synflow") else "magnitude")
    assert load(name) == base.model_copy(
        update={"score": name, "arguments": options, "iterations": iterations}
    )


def test_random_differs_in_the_score_alone():
    assert load("random") == Pruning(rounds=12, score="random")
