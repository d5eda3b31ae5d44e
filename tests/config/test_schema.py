import copy
import math
import typing

import pytest
from pydantic.fields import FieldInfo

from lth_cli.analyses.schema import Analyze
from lth_cli.config.compose import compose, validate
from lth_cli.config.errors import ConfigError
from lth_cli.config.schema import Config, fields
from lth_cli.config.values import FORMS, interval_seconds


@pytest.fixture(scope="module")
def values():
    return compose("prune", [])


def changed(values, path, value):
    changed = copy.deepcopy(values)
    *sections, key = path.split(".")
    here = changed
    for section in sections:
        here = here[section]
    here[key] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**53, "less than"),
        ("seed", "1", "valid integer"),
        ("seed", True, "valid integer"),
        ("seed", 1.0, "valid integer"),
        ("seeds.order", -1, "greater than or equal"),
        ("name", "../x", "letters, digits"),
        ("name", "a b", "letters, digits"),
        ("name", "", "letters, digits"),
        ("name", "x" * 121, "letters, digits"),
        ("runs_dir", "", "at least 1"),
        ("device", "gpu", "cuda:N"),
        ("threads", 0, "Input should be 'auto'; or Input should be greater than or equal to 1, got 0"),
        ("data.workers", -1, "greater than or equal"),
        ("data.download", "yes", "valid boolean"),
        ("dataset.validation", 1.0, "less than 1"),
        ("dataset.validation", -1, "greater than or equal"),
        ("dataset.subset.fraction", 0.0, "greater than 0"),
        ("dataset.subset.classes", ["a"], "valid integer"),
        ("dataset.label_noise", 1.1, "less than or equal to 1"),
        ("dataset.normalize.std", [0.0], "greater than 0"),
        ("dataset.augment.crop", -1, "greater than or equal"),
        ("model.init.weights", "xavier", "kaiming_normal"),
        ("model.prune_output", 1, "valid boolean"),
        ("optimizer.lr", 0.0, "greater than 0"),
        ("optimizer.lr", math.nan, "finite"),
        ("optimizer.lr", math.inf, "finite"),
        ("optimizer.lr", "0.1", "valid number"),
        ("schedule.warmup", 500, "500it"),
        ("precision.dtype", "fp16", "bf16"),
        ("training.length", "0it", "longer than zero"),
        ("training.length", "40", "2ep"),
        ("training.batch_size", 0, "greater than or equal to 1"),
        ("training.batch_size", 60.0, "valid integer"),
        ("training.label_smoothing", 1.0, "less than 1"),
        ("training.gradient_clip", 0.0, "greater than 0"),
        ("pruning.allocation", "local", "layerwise"),
        ("pruning.schedule", "cosine", "geometric"),
        ("pruning.rounds", -1, "greater than or equal to 0"),
        ("pruning.fraction", 1.0, "less than 1"),
        ("pruning.fraction", 0.0, "greater than 0"),
        ("pruning.density", 1.0, "less than 1"),
        ("pruning.output_layer", "no", "'keep'"),
        ("pruning.at", "soon", "500it"),
        ("rewind.to", "-5it", "500it"),
        ("controls.rounds", "5-3", "write 3-5"),
        ("controls.rounds", 1.5, "3,5-8"),
        ("evaluation.every", "0ep", "longer than zero"),
        ("evaluation.batch_size", 0, "greater than or equal to 1"),
        ("checkpoint.every", "0s", "longer than zero"),
        ("checkpoint.every", "1day", "10min"),
    ],
)
def test_wrong_values_are_named_by_path(values, path, value, message):
    with pytest.raises(ConfigError) as caught:
        validate(changed(values, path, value))
    assert str(caught.value).startswith(path)
    assert message in str(caught.value)
    assert repr(value) in str(caught.value) or isinstance(value, list)
    assert "\n" not in str(caught.value)


def test_every_mistake_is_reported_at_once(values):
    wrong = changed(changed(values, "training.batch_size", 0), "pruning.fraction", 2.0)
    wrong["optimizer"].pop("lr")
    wrong["training"]["batch_sise"] = 3
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    assert {path for path, _ in caught.value.problems} == {
        "training.batch_size",
        "pruning.fraction",
        "optimizer.lr",
        "training.batch_sise",
    }
    messages = dict(caught.value.problems)
    assert messages["optimizer.lr"] == "is required"
    assert messages["training.batch_sise"].startswith("unknown key; close to it: training.batch_size, ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 2**53 - 1),
        ("threads", 3),
        ("device", "cuda:1"),
        ("controls.rounds", 7),
        ("controls.rounds", "3,5-8"),
        ("checkpoint.every", "1h"),
        ("checkpoint.every", "500it"),
        ("rewind.to", 0),
        ("dataset.validation", 0.1),
        ("dataset.validation", 500),
        ("dataset.normalize", None),
        ("optimizer.lr", 1),
        ("pruning.layer_fractions", None),
        ("name", "a-b_c.d,e+f"),
    ],
)
def test_what_is_accepted_survives_a_round_trip(values, path, value):
    config = validate(changed(values, path, value))
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_configs_are_frozen(values):
    with pytest.raises(ValueError, match="frozen"):
        validate(values).seed = 1


def test_sections_must_agree(values):
    with pytest.raises(ConfigError, match="allocation=layerwise"):
        validate(changed(values, "pruning.layer_fractions", {"output": 0.1}))
    wrong = changed(changed(values, "controls.kinds", ["reinit"]), "controls.rounds", "13")
    with pytest.raises(ConfigError, match=r"controls\.rounds: round 13 does not exist.*pruning\.rounds=12"):
        validate(wrong)
    assert validate(changed(values, "controls.rounds", "13")).controls.kinds == []


def test_seeds_default_to_seed_but_for_the_split(values):
    config = validate(changed(changed(values, "seed", 7), "seeds.order", 3))
    assert config.resolved_seeds == {"init": 7, "order": 3, "augment": 7, "mask": 7, "split": 0}


@pytest.mark.parametrize(
    ("interval", "seconds"), [("60s", 60), ("10min", 600), ("2h", 7200), ("500it", None), ("1ep", None)]
)
def test_intervals(interval, seconds):
    assert interval_seconds(interval) == seconds


def test_every_field_says_what_it_means():
    silent = [
        path
        for path, field in fields()
        if field.description is None and not getattr(field.annotation, "__doc__", None)
    ]
    assert silent == []


def test_every_form_of_a_text_is_asked_for_in_words():
    def patterns(annotation, metadata=()):
        yield from (found for part in metadata if (found := getattr(part, "pattern", None)))
        for part in typing.get_args(annotation):
            if typing.get_origin(annotation) is typing.Annotated and isinstance(part, FieldInfo):
                yield from patterns(part.annotation, part.metadata)
            yield from patterns(part)

    found = {
        pattern
        for model in (Config, Analyze)
        for _, field in fields(model)
        for pattern in patterns(field.annotation, field.metadata)
    }
    assert found == FORMS.keys()
