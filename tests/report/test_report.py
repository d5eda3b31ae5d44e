"""Tables and figures of runs made by hand, with numbers that can be checked by eye."""

import json

import pytest
from matplotlib.axes import Axes

from lth_cli.config.compose import load
from lth_cli.config.errors import LthError, RequestError
from lth_cli.config.metrics import ACCURACY, Metric, plain
from lth_cli.report.figures import rounds_figure
from lth_cli.report.layout import print_table
from lth_cli.report.series import group_runs, labels, series
from lth_cli.report.show import as_json, compare, draw_figures, print_result, print_run
from lth_cli.report.tables import measured, rounds_table
from lth_cli.store.runs import Run


def row(number, density, score, steps=10, seconds=1.0):
    return {
        "round": number,
        "density": density,
        "sparsity": 1 - density,
        "test_loss": 0.5,
        "test_accuracy": score,
        "steps_trained": steps,
        "steps_reused": 5,
        "seconds": seconds,
    }


@pytest.fixture
def make_run(tmp_path):
    def make(name, scores=(0.9, 0.8), kind="prune", controls=None, overrides=(), metric=None):
        config = load("prune", ["device=cpu", "threads=1", *overrides]).config
        about = {
            "kind": kind,
            "command": ["lth", kind, f"name={name}"],
            "state": "finished",
            "created": "2026-01-02T03:04:05+00:00",
            "finished": "2026-01-02T04:04:05+00:00",
            "seeds": {},
            "error": None,
            "hardware": {"processor": "a CPU", "device": "cpu", "threads": 1},
            "versions": {"torch": "2"},
            **({"metrics": plain([metric])} if metric else {}),
        }
        run = Run.create(tmp_path / "runs", name, config.model_dump(mode="json"), about)
        rows = [row(n, 0.8**n, score) for n, score in enumerate(scores)]
        if metric:
            for one in rows:
                one[f"test_{metric.name}"] = one.pop("test_accuracy")
        run.write_results(rows)
        for branch, values in (controls or {}).items():
            run.write_results([row(n, 0.8**n, score) for n, score in values.items()], branch)
        return run

    return make


@pytest.fixture
def text_of(capsys):
    """Tables as they are printed into a pipe."""

    def text_of(*tables):
        capsys.readouterr()
        for table in tables:
            print_table(table)
        return capsys.readouterr().out

    return text_of


def test_a_table_of_one_run(make_run, text_of):
    text = text_of(rounds_table([make_run("a", controls={"reinit": {1: 0.7}})]))
    assert [line.split("\t") for line in text.splitlines()] == [
        ["round", "density (%)", "ticket", "reinit", "steps", "seconds"],
        ["0", "100", "90.00", "", "15", "1.0"],
        ["1", "80", "80.00", "70.00", "30", "2.0"],
    ]


def test_a_dense_run_is_headed_dense(make_run, text_of):
    run = make_run("a", scores=(0.9,), kind="train")
    text = text_of(rounds_table([run]))
    assert "dense" in text
    assert "ticket" not in text
    (svg,) = [path for path in rounds_figure([[run]], run.path / "figures" / "x") if path.suffix == ".svg"]
    assert "<!-- dense -->" in svg.read_text()


def test_seeds_become_mean_and_sample_deviation(make_run, text_of):
    runs = [
        make_run(f"s{seed}", (score, 0.5), overrides=[f"seed={seed}"])
        for seed, score in enumerate((0.9, 0.8, 0.7))
    ]
    assert group_runs(runs) == [runs]
    first, second = series(runs, None)
    assert (first.mean, first.spread) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (second.mean, second.spread) == (0.5, 0.0)
    assert measured(first, ACCURACY) == "80.00 ± 10.00"
    assert measured(None, ACCURACY) == ""
    assert "80.00 ± 10.00" in text_of(rounds_table(runs))


def test_places_and_checkpoints_do_not_set_runs_apart_and_settings_do(make_run):
    runs = [
        make_run("a"),
        make_run("b", overrides=["seeds.order=3", "checkpoint.every=5it", "data.workers=0"]),
        make_run("c", overrides=["optimizer.lr=0.5"]),
    ]
    groups = group_runs(runs)
    assert groups == [runs[:2], runs[2:]]
    assert labels(groups) == ["optimizer.lr=0.0012", "optimizer.lr=0.5"]
    assert labels(groups[:1]) == ["a and 1 more"]
    assert labels(groups[1:]) == ["c"]


def test_a_round_that_only_some_runs_have(make_run):
    runs = [make_run("a", (0.9, 0.8, 0.7)), make_run("b", (0.9,), overrides=["seed=1"])]
    points = series(runs, None)
    assert [point.values for point in points] == [[0.9, 0.9], [0.8], [0.7]]
    assert points[2].spread is None


def test_an_accuracy_that_is_missing_leaves_the_round_out(make_run):
    assert [point.round for point in series([make_run("a", (0.9, None, 0.7))], None)] == [0, 2]


def test_figures_are_the_same_bytes_for_the_same_results(make_run, tmp_path):
    groups = [[make_run("a", controls={"random": {1: 0.7}})], [make_run("b", overrides=["optimizer.lr=0.5"])]]
    first = rounds_figure(groups, tmp_path / "one" / "accuracy")
    second = rounds_figure(groups, tmp_path / "two" / "accuracy")
    assert [path.name for path in first] == ["accuracy.png", "accuracy.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    svg = first[1].read_text()
    for words in ("optimizer.lr=0.5, ticket", "random", "weights remaining (%)", "test accuracy (%)"):
        assert f"<!-- {words}" in svg or f"{words} -->" in svg


def test_a_ticket_without_any_weight_can_be_drawn(make_run, tmp_path):
    """The last round of MNIST-1D's study: density 0 has no place on a log axis."""
    run = make_run("a")
    run.write_results([row(0, 1.0, 0.9), row(1, 0.5, 0.8), row(2, 0.0, 0.1)])
    assert len(rounds_figure([[run]], tmp_path / "accuracy")) == 2


def test_nothing_finished_is_nothing_to_draw(make_run, tmp_path):
    run = make_run("a", scores=())
    assert rounds_figure([[run]], tmp_path / "x") == []
    draw_figures(run)
    with pytest.raises(LthError, match="no finished round"):
        compare([run], tmp_path / "x.png")


def test_json_has_everything_and_is_plain(make_run):
    shown = as_json(make_run("a", controls={"reinit": {1: 0.7}}))
    again = json.loads(json.dumps(shown, allow_nan=False))
    assert again["results"][1]["test_accuracy"] == 0.8
    assert (again["controls"]["reinit"][0]["round"], again["steps_trained"], again["steps_reused"]) == (
        1,
        30,
        15,
    )
    assert (again["state"], again["config"]["optimizer"]["lr"]) == ("finished", 1.2e-3)


def test_what_is_printed(make_run, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    one, two = make_run("a"), make_run("b", overrides=["seed=1"])
    print_result([one, two])
    text = capsys.readouterr().out
    assert "mean ± standard deviation over seeds 0, 1" in " ".join(text.split()), "titles wrap"
    assert f"Stored in {one.path}  (20 steps trained, 10 reused)" in text
    assert f"lth compare {one.path} {two.path} --figure" in text
    print_run(one)
    text = capsys.readouterr().out
    assert "lth prune name=a" in text
    assert "20 trained, 10 reused" in text
    compare([one, two], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()


def test_a_run_of_another_metric_is_told_by_it(make_run, text_of, tmp_path):
    psnr = make_run("siren", scores=(31.456, 28.1), metric=Metric("psnr", "higher", "dB"))
    assert "0\t100\t31.46\t15\t1.0\n" in text_of(rounds_table([psnr]))
    (svg,) = [path for path in rounds_figure([[psnr]], tmp_path / "x") if path.suffix == ".svg"]
    assert "test psnr (dB)" in svg.read_text()
    with pytest.raises(RequestError, match="siren by psnr, net2 by accuracy"):
        rounds_figure([[psnr], [make_run("net2")]], tmp_path / "y")


def with_costs(run, rows):
    """The rows of a run with parameters and multiply-adds: dense, and halved each round."""
    dense = {"dense_parameters": 1000, "dense_madds": 8000, "training_madds": 10**12, "reused_madds": 5}
    left = [{"parameters": 1000 // 2**n, "madds": 8000 // 2**n} for n in range(len(rows))]
    run.write_results([one | dense | more for one, more in zip(rows, left, strict=True)])
    return run


@pytest.mark.parametrize(
    ("axis", "expected", "label"),
    [
        ("parameters", [1000, 500], "parameters remaining"),
        ("madds", [8000, 4000], "multiply-adds remaining"),
        ("density", [100, 80], "weights remaining (%)"),
    ],
)
def test_a_figure_by_what_is_left(make_run, tmp_path, monkeypatch, axis, expected, label):
    run = make_run("a")
    with_costs(run, run.results())
    drawn = []
    draw = Axes.errorbar
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, *rest, **how: drawn.append(x) or draw(self, x, *rest, **how)
    )
    written = rounds_figure([[run]], tmp_path / "figure", axis)
    assert drawn == [expected]
    assert any(f"<!-- {label}" in path.read_text() for path in written if path.suffix == ".svg")


def test_a_run_of_an_earlier_release_has_no_such_axis_and_no_cost(make_run, tmp_path, capsys):
    old, new = make_run("old"), make_run("new", overrides=["optimizer.lr=0.5"])
    with_costs(new, new.results())
    compare([old, new], None)
    with pytest.raises(RequestError, match=r"optimizer\.lr=0\.0012 does not say how many madds remain"):
        rounds_figure([[old], [new]], tmp_path / "figure", "madds")
    capsys.readouterr()
    print_run(old)
    assert "multiply-adds" not in capsys.readouterr().out
    assert as_json(old)["training_madds"] is None
    print_run(new)
    told = capsys.readouterr().out
    assert "1,000 -> 500 parameters, 8,000 -> 4,000 multiply-adds a forward pass" in told
    assert "training 2e+12 trained, 10 reused" in told


def test_a_run_gone_on_with_knows_the_cost_of_its_later_rounds(make_run, capsys):
    run = make_run("a")
    first, second = run.results()
    with_costs(run, [second])
    run.write_results([first, *run.results()])
    assert run.results()[0]["madds"] is None
    print_run(run)
    told = capsys.readouterr().out
    assert "8,000 -> 8,000 multiply-adds" in told
    assert "reused 5" not in told and "e+12" not in told
    assert as_json(run)["training_madds"] is None
