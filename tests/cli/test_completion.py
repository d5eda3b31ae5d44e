import pytest


@pytest.fixture
def complete(lth, monkeypatch):
    """What TAB offers after the words, the last of which is being typed."""

    def bash(*words):
        monkeypatch.setenv("COMP_WORDS", "\n".join(("lth", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_LTH_COMPLETE", "complete_bash")
        return lth().out.split()

    def fish(line):
        monkeypatch.delenv("COMP_WORDS", raising=False)
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"lth {line}")
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("_LTH_COMPLETE", "complete_fish")
        return lth().out.split()

    bash.fish = fish
    return bash


def test_options_of_a_group_where_bash_splits_at_the_equals_sign(complete):
    assert complete("prune", "optimizer", "=") == ["adam", "adamw", "decoupled_sgd", "sgd"]
    assert complete("prune", "optimizer", "=", "ad") == ["adam", "adamw"]
    assert complete("prune", "seed", "=", "1", "optimizer", "=", "s") == ["sgd"]
    assert complete("train", "-m", "optimizer", "=", "sgd,ad") == ["sgd,adam", "sgd,adamw"]
    assert complete("prune", "optimizer", "=", "nothing") == []


def test_options_where_the_word_stays_whole(complete):
    assert complete.fish("prune optimizer=ad") == ["optimizer=adam", "optimizer=adamw"]
    assert complete("prune", "optimizer=ad") == ["optimizer=adam", "optimizer=adamw"]


def test_groups_and_keys(complete):
    keys = complete("prune", "")
    assert {"model=", "experiment=", "seed=", "training.length=", "optimizer.lr=", "runs_dir="} <= set(keys)
    assert not any("_target_" in key for key in keys)
    assert complete("prune", "training.b") == ["training.batch_size=", "training.batch_size=60"]
    assert complete("prune", "precision.d") == [
        "precision.dtype=",
        *(f"precision.dtype={d}" for d in ("fp32", "tf32", "bf16")),
    ]


def test_keys_of_the_option_chosen_so_far(complete):
    assert complete("prune", "optimizer.mom") == []
    assert complete("prune", "optimizer", "=", "sgd", "optimizer.mom") == [
        "optimizer.momentum=",
        "optimizer.momentum=0.9",
    ]
    assert "optimizer.nesterov=true" in complete.fish("prune optimizer=sgd optimizer.nest")


def test_values_of_keys(complete):
    assert complete("prune", "training.shuffle", "=") == ["true", "false"]
    assert complete("prune", "pruning.allocation", "=", "l") == ["layerwise"]
    assert complete("prune", "seed", "=") == ["0"]
    assert complete("prune", "nothing", "=") == []


def test_a_config_folder_of_ones_own(complete, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "special.yaml").write_text("_target_: x.y\nwidth: 3\n")
    assert complete("prune", "--config-dir", "mine", "model", "=", "spec") == ["special"]
    assert complete("prune", "model", "=", "spec") == []
    own = ("prune", "--config-dir", "mine", "model", "=", "special")
    assert complete(*own, "model.w") == ["model.width=", "model.width=3"]
