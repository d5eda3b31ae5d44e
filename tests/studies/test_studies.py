from pathlib import Path

import pytest

from lth_cli.config.errors import ConfigError, RequestError
from lth_cli.studies.branching import earliest_true
from lth_cli.studies.claims import Unknown, check_names, holds
from lth_cli.studies.finding import find, load, paths
from lth_cli.studies.plan import make_plan
from lth_cli.studies.report import judge
from lth_cli.studies.schema import Table
from lth_cli.studies.tables import pivot

OWN = """
about: rates
paper: none
claim: larger rates are better
overrides: {dataset: digits, training.length: 12it}
steps:
  nets: {command: train, sweep: {optimizer.lr: [0.0001, 0.01], seed: [0, 1]}}
  taught:
    command: train
    from: [nets]
    overrides: {distillation: kd, distillation.teachers: "[{nets}]"}
    sweep: {optimizer.lr: [0.01], seed: [1]}
  masks: {command: prune, overrides: {pruning.rounds: 1}, sweep: {seed: [0, 1]}}
  again: {command: rewind, from: [masks], sweep: {rewind.to: [0, 3it]}}
  paths: {command: analyze, from: [masks], overrides: {analysis: masks}}
profiles:
  quick: {overrides: {threads: 1}}
  long: {overrides: {training.length: 24it}, sweep: {seed: [5]}, without: [masks]}
tables:
  rates: {title: Rates, of: [nets], rows: optimizer.lr, columns: kind}
holds:
  - {claim: larger is better, check: 'rates["0.01", "dense"] > rates["0.0001", "dense"]'}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "rates.yaml"
    path.write_text(OWN)
    return path


def _points(path: Path, *typed: str):
    return {step.name: step.points for step in make_plan(find(str(path), None), typed).steps}


def test_points_are_all_combinations_and_named_by_what_is_swept(own: Path):
    points = _points(own)
    assert [point.name for point in points["nets"]] == [
        "rates-quick-nets-lr_0.0001-seed_0",
        "rates-quick-nets-lr_0.0001-seed_1",
        "rates-quick-nets-lr_0.01-seed_0",
        "rates-quick-nets-lr_0.01-seed_1",
    ]
    assert "threads=1" in points["nets"][0].overrides


def test_labels_of_a_step_go_on_to_what_builds_on_it(own: Path):
    own.write_text(
        OWN.replace("masks: {command: prune,", "masks: {command: prune, labels: {found: there},").replace(
            "again: {command: rewind,", "again: {command: rewind, labels: {trained: here},"
        )
    )
    points = _points(own)
    assert dict(points["masks"][1].labels) == {"found": "there", "seed": "1"}
    assert dict(points["again"][3].labels) == {
        "found": "there",
        "seed": "1",
        "trained": "here",
        "rewind.to": "3it",
    }


def test_masks_are_trained_with_the_settings_of_another_step(own: Path):
    own.write_text(
        OWN.replace(
            "again: {command: rewind, from: [masks],",
            "again: {command: rewind, from: [masks], onto: nets, overrides: {training.length: 6it},",
        ).replace("{threads: 1}", "{threads: 1, optimizer: sgd, pretrain.weights: a}")
    )
    assert _points(own)["again"][0].overrides == (
        "dataset=digits",
        "training.length=6it",
        "optimizer=sgd",
        "rewind.to=0",
    )


def test_a_reference_is_the_run_whose_swept_values_agree(own: Path):
    (taught,) = _points(own)["taught"]
    assert "distillation.teachers=[rates-quick-nets-lr_0.01-seed_1]" in taught.overrides


def test_a_training_for_each_run_of_another_step_takes_that_run_and_its_seed(own: Path):
    each = "from: [nets]\n    ask: each"
    own.write_text(
        OWN.replace("from: [nets]", each).replace("{optimizer.lr: [0.01], seed: [1]}", "{seed: [0, 1]}")
    )
    assert [(dict(point.labels), point.overrides[-2:]) for point in _points(own)["taught"]] == [
        (
            {"optimizer.lr": lr, "seed": seed},
            (f"distillation.teachers=[rates-quick-nets-lr_{lr}-seed_{seed}]", f"seed={seed}"),
        )
        for lr in ("0.0001", "0.01")
        for seed in ("0", "1")
    ]


def test_a_rewind_takes_each_run_and_a_question_runs_that_differ_by_seed(own: Path):
    points = _points(own)
    assert [point.sources for point in points["again"]] == [
        ("rates-quick-masks-seed_0",),
        ("rates-quick-masks-seed_0",),
        ("rates-quick-masks-seed_1",),
        ("rates-quick-masks-seed_1",),
    ]
    assert not any("threads" in text or "dataset" in text for text in points["again"][0].overrides)
    assert [point.sources for point in points["paths"]] == [
        ("rates-quick-masks-seed_0", "rates-quick-masks-seed_1")
    ]


def test_a_profile_changes_seeds_and_leaves_out_a_step_with_what_builds_on_it(own: Path):
    plan = make_plan(find(str(own), None), ["profile=long"])
    assert [step.name for step in plan.steps] == ["nets", "taught"]
    assert {point.labels["seed"] for point in plan.steps[0].points} == {"5"}
    assert "training.length=24it" in plan.steps[0].points[0].overrides


def test_a_claim_of_one_profile_is_checked_in_that_alone(own: Path):
    own.write_text(OWN.replace('"dense"]\'}', '"dense"]\', profiles: [long]}'))
    found = find(str(own), None)
    assert not judge(make_plan(found, []), {})
    (verdict,) = judge(
        make_plan(found, ["profile=long"]),
        {"rates": pivot("rates", Table(title="", of=["x"], rows="seed"), [])},
    )
    assert verdict.told.startswith("not checked: larger is better")


def test_typed_settings_make_another_folder_and_places_do_not(own: Path):
    found = find(str(own), None)
    assert make_plan(found, ["data.root=/x", "launcher=local", "threads=2"]).folder == "quick"
    assert make_plan(found, ["nets:data.root=/x"]).folder == "quick"
    changed = make_plan(found, ["optimizer.weight_decay=1e-4"])
    assert changed.folder.startswith("quick-")
    assert not any("weight_decay" in text for text in changed.steps[3].points[0].overrides)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("from: [masks], sweep", "from: [mask], sweep"), "no step 'mask'"),
        (("of: [nets]", "of: [net]"), "no step 'net'"),
        (('> rates["0', '> rate["0'), "no 'rate'"),
        (("seed: [1]}", "seed: 1}"), "takes a list"),
        (("about: rates", "abuot: rates"), "abuot"),
        (('"dense"]\'}', '"dense"]\', profiles: [small]}'), "no profile 'small'"),
    ],
)
def test_mistakes_are_named(own: Path, wrong: tuple[str, str], told: str):
    assert wrong[0] in OWN
    own.write_text(OWN.replace(*wrong))
    with pytest.raises(ConfigError, match=told):
        find(str(own), None)


def test_unknown_names_are_refused(own: Path):
    with pytest.raises(RequestError, match="lmc_lth"):
        find("lmc_lht", None)
    with pytest.raises(RequestError, match="quick, long"):
        make_plan(find(str(own), None), ["profile=fast"])
    with pytest.raises(ConfigError, match="no such step"):
        make_plan(find(str(own), None), ["net:seed=3"])


def test_a_setting_that_no_step_takes_is_refused(own: Path):
    with pytest.raises(ConfigError, match="no step of the study takes it"):
        make_plan(find(str(own), None), ["control=reinit"])


@pytest.mark.parametrize("name", sorted(paths(None)))
def test_every_packaged_study_can_be_laid_out_in_every_profile(name: str):
    found = load(name, paths(None)[name])
    for profile in found.study.profiles:
        names = [p.name for s in make_plan(found, [f"profile={profile}"]).steps for p in s.points]
        assert len(set(names)) == len(names)


RECORDS = [
    {"kind": kind, "round": r, "sparsity": 0.1 * r, "run": f"s{seed}", "test_accuracy": a + 0.1 * seed, "last": r == 2}
    for kind, r, a in (("dense", 0, 0.5), ("ticket", 1, 0.6), ("ticket", 2, 0.3))
    for seed in (0, 1)
]  # fmt: skip


def test_a_table_has_mean_and_spread_over_seeds():
    spec = Table(title="", of=["x"], rows="round")
    table = pivot("t", spec, RECORDS)
    assert (table.rows, table.columns) == (["0", "1", "2"], ["dense", "ticket"])
    assert table.told("1", "ticket") == "65.00 ± 7.07"
    assert table.told("1", "dense") == ""
    last = pivot("t", Table(title="", of=["x"], rows="round", where={"round": "last"}), RECORDS)
    assert last.rows == ["2"]


def test_the_nearest_round_stands_for_a_value_unless_it_is_far():
    spec = Table(title="", of=["x"], rows="sparsity", columns="round", nearest={"sparsity": [0.19, 0.5]})
    table = pivot("t", spec, RECORDS)
    assert list(table.cells) == [("19 %", "2")]


def test_published_values_stand_beside():
    published = [{"source": "p", "sure": "verified", "values": {"1": {"ticket": 66.0}, "9": {"ticket": 1}}}]
    spec = Table.model_validate({"title": "", "of": ["x"], "rows": "round", "published": published})
    table = pivot("t", spec, RECORDS)
    assert table.told("1", "ticket") == "65.00 ± 7.07 [66]"
    assert table.told("9", "ticket") == "– [1]"
    published[0]["profile"] = "paper"
    spec = Table.model_validate({"title": "", "of": ["x"], "rows": "round", "published": published})
    assert not pivot("t", spec, RECORDS, "quick").published
    assert len(pivot("t", spec, RECORDS, "paper").published) == 2


def test_the_last_round_without_loss_has_none_with_loss_before_it():
    accuracies = {"a": (0.9, 0.89, 0.88, 0.95), "b": (0.5, 0.75, 0.75, 0.75)}
    records = [
        {"kind": "ticket" if r else "dense", "sparsity": 0.25 * r, "run": run, "step": "s", "test_accuracy": a}
        for run, values in accuracies.items()
        for r, a in enumerate(values)
    ]  # fmt: skip
    spec = Table(title="", of=["s"], metric="sparsity", rows="step", columns="run", without_loss=1.5)
    told = {column: cell.mean for (_, column), cell in pivot("t", spec, records).cells.items()}
    assert told == {"a": 25, "b": 75}


def test_claims_are_worked_out_or_unknown():
    table = {"t": pivot("t", Table(title="", of=["x"], rows="round"), RECORDS)}
    assert holds('t["1", "ticket"] > t["0", "dense"] + 5 and spread(t["1", "ticket"]) < 8', table)
    assert not holds('not mean(t, "ticket") == 50', table)
    assert holds('lowest(t, "ticket", 60) == 1 and earliest(t, "ticket", 60) > 99', table)
    assert holds('lowest(t, "ticket", 30) == 2 and earliest(t, "ticket", 30) == 1', table)
    two = {"t": pivot("t", Table(title="", of=["x"], rows="round", columns="kind"), [
        {"kind": kind, "round": r, "run": "s", "test_accuracy": a}
        for kind, values in (("a", (0.5, 0.75)), ("b", (0.625, 0.5))) for r, a in enumerate(values)
    ])}  # fmt: skip
    assert holds('apart(t, "a", "b") == 25', two)
    with pytest.raises(Unknown, match="no value"):
        holds('apart(t, "a", "c") < 1', two)
    with pytest.raises(Unknown, match="no value"):
        holds('t["7", "ticket"] > 1', table)
    with pytest.raises(Unknown, match="no column 'random'"):
        holds('earliest(t, "random", 1) > 99', table)


@pytest.mark.parametrize(
    "text", ["__import__('os')", "t.cells", "(lambda: 1)()", "[x for x in t]", "1 +", "f(1)", "2**9"]
)
def test_what_is_no_claim_is_refused(text: str):
    with pytest.raises(ValueError, match="check:"):
        check_names("check", text, ["t"])


@pytest.mark.parametrize("earliest", [0, 1, 37, 99, 100, 1000])
def test_bisection_ends_beside_the_earliest(earliest: int):
    settings = {"key": "at", "column": "stable", "lowest": 0, "highest": 100, "resolution": 5}
    found: list = []
    while (more := earliest_true(found, **settings)) is not None:
        step = int(more[0].strip("at=[]i"))
        found.append((("x=1", *more), [{"stable": step >= earliest}]))
    steps = [int(overrides[1].strip("at=[]i")) for overrides, _ in found]
    stable = [step for step in steps if step >= earliest]
    if 0 < earliest <= 100:
        assert 0 <= min(stable) - max(step for step in steps if step < earliest) <= 5
    else:
        assert steps == [0, 100]


def test_a_trial_is_named_by_its_number_and_set_to_its_values(own: Path):
    swept = "sweep: {optimizer.lr: [0.0001, 0.01], seed: [0, 1]}"
    assert swept in OWN
    own.write_text(
        OWN.replace(swept, 'trials: 2, sweep: {optimizer.lr: ["tag(log,interval(1e-4,1))"], seed: [0, 1]}')
    )
    nets = _points(own, "profile=long")["nets"]
    assert [point.name for point in nets] == [
        "rates-long-nets-seed_5-trial_0",
        "rates-long-nets-seed_5-trial_1",
    ]
    assert [text for point in nets for text in point.overrides if "lr" in text] == [
        "optimizer.lr=0.01",
        "optimizer.lr=0.1",
    ]
    assert not any(text.startswith("trial=") for point in nets for text in point.overrides)
    own.write_text(OWN.replace(swept, f"trials: 2, {swept}"))
    with pytest.raises(ConfigError, match="goes with ranges"):
        _points(own)


@pytest.mark.parametrize(("take", "values"), [("lowest", (20, 5)), ("highest", (40, 5)), ("sum", (60, 5))])
def test_of_trials_a_table_takes_the_best_of_each_seed(take: str, values: tuple[int, ...]):
    found = [(0, 40), (0, None), (0, 20), (1, 5)]
    records = [
        {"kind": "dense", "size": "8", "seed": seed, "run": "r", "steps_to_goal": steps}
        for seed, steps in found
    ]
    spec = Table(title="t", of=["x"], metric="steps_to_goal", unit="", rows="size", take=take)
    assert pivot("t", spec, records).cells["8", "dense"].values == values


def test_the_smallest_density_is_of_rounds_as_good_as_the_dense_one_of_their_run():
    spec = Table(
        title="",
        of=["a"],
        metric="density",
        without_loss=0,
        take="lowest",
        rows="step",
        columns="kept",
    )
    rounds = [(0, 1.0, 0.9), (1, 0.5, 0.9), (2, 0.25, 0.8)], [(0, 1.0, 0.7), (1, 0.5, 0.6), (2, 0.25, 0.6)]
    records = [
        {"step": "a", "kept": "x", "seed": seed, "run": f"r{seed}", "kind": "dense" if number == 0 else "ticket",
         "density": density, "test_accuracy": accuracy}
        for seed, rows in enumerate(rounds)
        for number, density, accuracy in rows
    ]  # fmt: skip
    assert pivot("smallest", spec, records).cells["a", "x"].values == (50.0, 100.0)
