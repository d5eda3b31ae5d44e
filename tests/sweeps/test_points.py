import pytest

from lth_cli.config import compose
from lth_cli.config.errors import ConfigError
from lth_cli.config.points import load_all


def alone(combination, config_dir=None):
    try:
        return compose.load("prune", combination, config_dir).values
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0,1", "rewind.to=0,1ep50it", "model=conv2,lenet_300_100", "training.length=2ep"],
        ["experiment=demo", "optimizer=sgd,adam", "optimizer.lr=0.1,0.2", "controls.kinds=[],[random]"],
        ["optimizer.betas=[0.9,0.99],[0.8,0.9]", "dataset.subset.classes=null,[3,5]", "name=a,b"],
        ["+dataset.label_noise=0.1,0.2", "seed=1"],
        ["++seed=1,2", "~controls"],
        ["pruning={rounds:1},{rounds:2}", "pruning.rounds=3,4"],
        ["optimizer.lr=-1,0.1", "rewind.to=x,0", "model=nothing,conv2"],
        ["nothing=1,2", "seed=0,1"],
        ["model.depth=2,3", "model=mlp"],
        ["seed=${nothing},${threads}"],
    ],
)
def test_same_as_composing_each_alone(overrides):
    combinations = compose.expand(overrides)
    together = load_all("prune", combinations)
    for combination, found in zip(combinations, together, strict=True):
        values = str(found) if isinstance(found, ConfigError) else found.values
        assert values == alone(combination)
        assert isinstance(found, ConfigError) or found.overrides == combination


def test_a_persons_own_options_are_found(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: lth_cli.models.mlp.MLP\nhidden: [7]\n")
    combinations = compose.expand(["model=mine", "seed=0,1"])
    together = load_all("prune", combinations, tmp_path)
    assert [found.values for found in together] == [alone(one, tmp_path) for one in combinations]
    assert together[1].values["model"]["hidden"] == [7]
