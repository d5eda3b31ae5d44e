"""Finding, comparing, tagging, watching, renaming and deleting runs; none of it needs torch."""

import csv
import io
import json
import subprocess
import sys
import threading

import pytest

from lth_cli.config.compose import load
from lth_cli.store.runs import Run
from lth_cli.store.sweeps import Sweep, SweepPoint

READING = (
    ["ls", "model=resnet20", "--json"],
    ["show", "late"],
    ["compare", "imp-0", "late"],
    ["diff", "imp-0", "late"],
    ["tag", "late", "--add", "seen"],
    ["mv", "late", "later"],
    ["rm", "later", "--yes"],
    ["watch"],
    ["gc"],
    ["ls", "--sweep"],
)


def make(folder, name, scores, *overrides, controls=None, **info):
    """A finished run with these accuracies by round, made by hand."""
    config = load("prune", ["device=cpu", "threads=1", *overrides]).config
    about = {
        "kind": "prune",
        "command": ["lth", "prune", *overrides],
        "state": "finished",
        "created": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00",
        "versions": {"torch": "2.11"},
        "hardware": {"processor": "a CPU", "device": "cpu", "threads": 1},
        "git_commit": "0123456789abcdef",
    }
    run = Run.create(folder / "runs", name, config.model_dump(mode="json"), about | info)
    for branch, found in {None: scores, **(controls or {})}.items():
        rows = [
            {"round": number, "density": 0.8**number, "sparsity": 1 - 0.8**number, "test_loss": 0.5}
            | {"test_accuracy": score, "steps_trained": 10, "steps_reused": 5, "seconds": 1.0}
            for number, score in enumerate(found)
        ]
        run.write_results(rows, branch)
    return run


@pytest.fixture
def runs(tmp_path):
    """Two seeds with a control, a later rewind point, one of another model, and a run that has no round yet."""
    for seed in (0, 1):
        make(
            tmp_path, f"imp-{seed}", [0.9, 0.8 + 0.1 * seed], f"seed={seed}", controls={"random": [0.9, 0.5]}
        )
    make(tmp_path, "late", [0.9, 0.95], "rewind.to=500it", versions={"torch": "2.12"})
    make(tmp_path, "net", [0.7], "model=resnet20", "dataset=cifar10", "model.width=8")
    make(tmp_path, "new", [], state="failed", error="it diverged")
    return tmp_path


def names(done):
    assert done.code == 0, done.err
    return [line.split("\t")[0] for line in done.out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["model=resnet20"], ["net"]),
        (["dataset=cifar10", "state=finished"], ["net"]),
        (["model.width=8"], ["net"]),
        (["rewind.to=500it"], ["late"]),
        (["to=500it"], ["late"]),
        (["seed=1,2"], ["imp-1"]),
        (["run=imp-*"], ["imp-0", "imp-1"]),
        (["name!=imp-*", "rounds>0"], ["late", "net"]),
        (["test_accuracy>0.9"], ["late"]),
        (["test_accuracy>=90%"], ["imp-1", "late"]),
        (["accuracy<=0.8"], ["imp-0", "net"]),
        (["density<1", "lr=1.2e-3"], ["imp-0", "imp-1", "late"]),
        (["torch=2.12"], ["late"]),
        (["error=*diverged"], ["new"]),
        (["created>=2026-01", "state=failed"], ["new"]),
        (["controls.kinds=[]", "pretrain.length=0it", "state!=finished"], ["new"]),
    ],
)
def test_filters(runs, lth, filters, found):
    assert names(lth("ls", *filters)) == found


def test_no_run_is_so(runs, lth):
    done = lth("ls", "state=running")
    assert (done.code, done.out, done.err) == (0, "", "lth: no run in runs is so\n")
    assert json.loads(lth("ls", "state=running", "--json").out) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test_acuracy>0.9"], "no run has 'test_acuracy'; close to it: test_accuracy"),
        (["optimizer.lrr!=1"], "no run has 'optimizer.lrr'; close to it: optimizer.lr"),
        (["--columns", "run,modle"], "no run has 'modle'; close to it: model"),
        (["--sort", "acuracy"], "no run has 'acuracy'"),
        (["test_accuracy>high"], "compares with 'high', which is no number"),
        (["imp-0"], "'imp-0' is no filter; write KEY=VALUE"),
        (["every=1ep"], "could be checkpoint.every, distillation.every, evaluation.every; write one of them"),
        (["--json", "--csv"], "give one"),
        (["--columns", ","], "--columns takes names"),
    ],
)
def test_wrong_questions(runs, lth, arguments, said):
    done = lth("ls", *arguments, *(["--json"] if "!=" in arguments[0] else []))
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_an_order_and_columns(runs, lth):
    words = ("ls", "--columns", "run,to,test_accuracy,density,created", "--sort")
    done = lth(*words, "test_accuracy")
    assert done.out.splitlines()[0] == "run\tto\ttest_accuracy (%)\tdensity (%)\tcreated"
    assert done.out.splitlines()[1].startswith("net\t0it\t70.00\t100\t2026-01-02")
    assert names(done) == ["net", "imp-0", "imp-1", "late", "new"]
    assert names(lth(*words, "-test_accuracy")) == ["late", "imp-1", "imp-0", "net", "new"]
    assert names(lth(*words, "test_accuracy", "--descending")) == ["late", "imp-1", "imp-0", "net", "new"]
    make(runs, "imp-10", [0.1], "rewind.to=10it")
    assert names(lth("ls", "run=*-*", "--columns", "run", "--sort", "run")) == ["imp-0", "imp-1", "imp-10"]
    assert names(lth("ls", "to!=0it", "--sort", "to")) == ["imp-10", "late"]
    rows = json.loads(lth(*words, "run", "--json").out)
    assert rows[3] == {
        "run": "late",
        "to": "500it",
        "test_accuracy": 0.95,
        "density": 0.8,
        "created": "2026-01-02T03:04:05+00:00",
    }
    table = list(csv.DictReader(io.StringIO(lth("ls", "--csv").out)))
    assert [row["run"] for row in table] == ["imp-0", "imp-1", "imp-10", "late", "net", "new"]
    assert (table[4]["model"], table[4]["test_accuracy"], table[5]["density"]) == ("resnet20", "0.7", "")


def test_damaged_runs_are_named_and_the_others_shown(runs, lth):
    (runs / "runs" / "late" / "results.csv").write_text("not,a\ntable")
    done = lth("ls")
    assert names(done) == ["imp-0", "imp-1", "net", "new"]
    assert "late/results.csv is damaged" in done.err
    for name in ("imp-0", "imp-1", "net", "new"):
        (runs / "runs" / name / "run.json").write_text("{}")
    assert lth("ls").code == 1


def test_tags_are_given_taken_shown_and_filtered_by(runs, lth):
    assert lth("tag", "imp-0", "imp-1", "--add", "paper,b", "--note", "of the paper").code == 0
    assert lth("tag", "imp-0", "--remove", "b", "-a", "c").out == "imp-0: c paper; of the paper\n"
    assert names(lth("ls", "tags=paper")) == ["imp-0", "imp-1"]
    assert names(lth("ls", "tags=c,x")) == ["imp-0"]
    assert names(lth("ls", "tags!=paper", "rounds>1")) == ["late"]
    assert "\tb paper\tof the paper\t" in lth("ls").out
    assert "tags       b paper" in lth("show", "imp-1").out
    assert lth("tag", "imp-1", "--note", "").out == "imp-1: b paper\n"
    for words in (["--add", "a b"], ["--remove", "x"], ["--add", "x", "--remove", "x"], ["--note", "a\nb"]):
        refused = lth("tag", "imp-0", "late", *words)
        assert refused.code == 2 and refused.err, words
    assert names(lth("ls", "tags=x")) == []


def test_groups_stand_side_by_side_with_their_controls_and_what_differs(runs, lth):
    done = lth("compare", "imp-0", "imp-1", "late", "new", "nothing")
    assert done.code == 0
    assert "no run 'nothing' in runs" in done.err and "new has no finished round yet (failed)" in done.err
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert ["round", "density (%)", "A ticket", "A random", "B ticket"] in lines
    assert ["1", "80", "85.00 ± 7.07", "50.00 ± 0.00", "95.00"] in lines
    assert ["rewind.to", "0it", "500it"] in lines and ["versions.torch", "2.11", "2.12"] in lines
    assert not any(line[0] == "seed" for line in lines)
    assert lth("compare", "new", "nothing").code == 1


def test_rounds_of_other_densities_have_lines_of_their_own(runs, lth):
    run = make(runs, "half", [0.9, 0.6], "pruning.fraction=0.5")
    run.write_results([row | {"density": 0.5 ** row["round"]} for row in run.results()])
    lines = [line.split("\t") for line in lth("compare", "late", "half").out.splitlines()]
    table = lines[2:6]
    assert table == [
        ["round", "density (%)", "A ticket", "B ticket"],
        ["0", "100", "90.00", "90.00"],
        ["1", "80", "95.00", ""],
        ["1", "50", "", "60.00"],
    ]


def test_a_comparison_for_programs_is_tidy(runs, lth):
    rows = list(csv.DictReader(io.StringIO(lth("compare", "imp-0", "late", "--csv").out)))
    assert list(rows[0])[:7] == ["group", "run", "seed", "kind", "round", "density", "test_accuracy"]
    told = [(row["run"], row["kind"], row["round"], row["test_accuracy"]) for row in rows]
    assert told[3:5] == [("imp-0", "random", "1", "0.5"), ("late", "ticket", "0", "0.9")]
    again = json.loads(lth("compare", "imp-0", "late", "--json").out)
    assert [row["test_accuracy"] for row in again] == [float(row["test_accuracy"]) for row in rows]


def own_code(text, diff):
    modules = {"mylab": {"text": text, "digest": str(hash(text))}}
    git = {"repository": "lab", "commit": "c" * 40, "files": ["mylab.py"], "diff": diff, "untracked": []}
    return {
        "own_code": {"model": {"target": "mylab.Net", "version": None, "modules": modules}},
        "own_code_git": [git],
    }


def test_every_difference_of_two_runs(runs, lth):
    change = "--- a/mylab.py\n+++ b/mylab.py\n-x = 1\n+x = 2\n"
    make(runs, "mine", [0.5], "optimizer.lr=0.1", **own_code("x = 1\n", ""))
    make(runs, "edited", [0.5], **own_code("x = 2\n", change))
    done = lth("diff", "mine", "edited")
    assert done.code == 0, done.err
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert ["optimizer.lr", "0.1", "0.0012"] in lines
    assert any(
        line[0] == "git of lab: uncommitted" and line[2].startswith("2 lines changed") for line in lines
    )
    assert "-x = 1\n+x = 2" in done.out and change in done.out
    found = json.loads(lth("diff", "mine", "edited", "--json").out)
    assert found["uncommitted"] == {"mine": {}, "edited": {"lab": change}}
    assert {"section": "config", "key": "optimizer.lr", "values": [0.1, 0.0012]} in found["differences"]
    assert "config,optimizer.lr,0.1,0.0012\n" in lth("diff", "mine", "edited", "--csv").out
    assert "same config, environment and code" in lth("diff", "mine", "mine").out


def test_a_key_that_an_older_release_did_not_know_is_at_its_default(runs, lth):
    run = Run(runs / "runs" / "late")
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("  predictions: false\n", ""))
    assert "evaluation.predictions" not in lth("diff", "late", "imp-0").out


def test_a_run_is_deleted_and_its_name_is_free(runs, lth):
    asked = lth("rm", "late", "new")
    assert asked.code == 1 and "Nothing was deleted" in asked.out and "late: finished, 2 rounds" in asked.out
    assert lth("rm", "late", "new", "--yes").code == 0
    assert names(lth("ls")) == ["imp-0", "imp-1", "net"]
    assert not [path for path in (runs / "runs").iterdir() if path.name.startswith(".tmp")]


def test_a_run_gets_another_name(runs, lth):
    assert lth("mv", "late", "baseline").code == 0
    assert names(lth("ls", "rewind.to=500it")) == ["baseline"]
    assert Run.open(runs / "runs" / "baseline").info["name"] == "baseline"
    taken = lth("mv", "baseline", "net")
    assert taken.code == 2 and "net exists already" in taken.err
    assert lth("mv", "baseline", "../net").code == 2


@pytest.mark.parametrize("command", [["rm", "--yes"], ["mv"]])
def test_a_live_run_stays_where_it_is(runs, lth, command):
    words = [*command, "late", *(["other"] if command[0] == "mv" else [])]
    with Run(runs / "runs" / "late").lock().acquire():
        done = lth(*words, "--although-used")
    assert done.code == 2 and "run late is in use by pid" in done.err
    assert lth(*words).code == 0


def test_what_others_build_upon_stays(runs, lth):
    source = Run(runs / "runs" / "imp-0")
    note = {"name": "imp-0", "path": str(source.path), "id": source.info["id"]}
    child = make(runs, "child", [0.5], source=note)
    done = lth("rm", "imp-0", "late", "--yes")
    assert done.code == 2 and "imp-0: child retrains its masks (finished" in done.err
    assert lth("mv", "imp-0", "x").code == 2
    child.update(state="interrupted")
    needed = lth("rm", "imp-0", "--yes", "--although-used")
    assert needed.code == 2 and "child retrains its masks, and is not finished" in needed.err
    child.update(state="finished")
    assert len(names(lth("ls"))) == 6, "nothing is deleted where anything is refused"
    assert lth("rm", "imp-0", "child", "--yes").code == 0, "with all that builds upon it, it may go"


def test_teachers_scores_and_sweeps_count_too(runs, lth):
    scores = runs / "runs" / "late" / "analysis" / "examples-01234567"
    make(
        runs,
        "chosen",
        [0.5],
        "dataset.subset.count=9",
        "dataset.subset.by=el2n",
        f"dataset.subset.scores={scores}",
    )
    make(runs, "pupil", [], "distillation=kd", "distillation.teachers=[net:last]", state="interrupted")
    points = [SweepPoint(0, ["seed=0"], "imp-0", 1, {}), SweepPoint(1, ["seed=1"], "imp-1", 1, {})]
    Sweep.write(runs / "runs", "s", points, kind="prune", command=[], launcher={"kind": "serial"})
    done = lth("rm", "late", "net", "imp-1", "--yes")
    assert done.code == 2
    assert "late: the data of chosen are chosen by an analysis of it (finished" in done.err
    assert "net: pupil learns from it, and is not finished" in done.err
    assert "imp-1: it is point 1 of sweep s (finished" in done.err
    assert lth("rm", "imp-1", "--yes", "--although-used").code == 0


def test_watching_ends_with_the_work_and_prints_a_line_a_change(runs, lth):
    run = Run(runs / "runs" / "late")
    run.update(state="running", trainings=3)
    held = run.lock().acquire()

    def finish():
        run.write_results([*run.results(), run.results()[-1] | {"round": 2}])
        run.update(state="finished")
        held.release()

    timer = threading.Timer(0.5, finish)
    timer.start()
    done = lth("watch", "--every", "0.1")
    timer.join()
    lines = [line.split("\t")[1:] for line in done.out.splitlines()]
    assert lines[0] == ["run", "state", "rounds", "test", "now"]
    assert lines[1] == ["late", "running", "2/3", "95.00 %", ""]
    assert lines[-1] == ["late", "finished", "3/3", "95.00 %", ""]
    idle = lth("watch")
    assert (idle.code, idle.out, idle.err) == (0, "", "lth: nothing is at work in runs\n")
    assert names(lth("watch", "new")) and lth("watch", "nothing").code == 1


def test_commands_that_train_nothing_do_without_torch(runs):
    program = """
import sys
from lth_cli.cli.main import main
for words in {words!r}:
    sys.argv = ["lth", *words]
    try:
        main()
    except SystemExit as left:
        assert not left.code, (words, left.code)
    heavy = {{"torch", "numpy", "matplotlib"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    points = [SweepPoint(0, ["seed=0"], "imp-0", 1, {})]
    Sweep.write(runs / "runs", "s", points, kind="prune", command=[], launcher={"kind": "serial"})
    done = subprocess.run(
        [sys.executable, "-c", program.format(words=READING)],
        cwd=runs,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
