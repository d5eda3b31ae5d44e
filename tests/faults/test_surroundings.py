"""What is wrong around the program, or typed beyond all bounds, ends in a message that says what."""

import os
import resource
import subprocess
import sys

import pytest

PROGRAM = (sys.executable, "-c", "from lth_cli.cli.main import main; main()")
TINY = (
    "device=cpu",
    "threads=1",
    "model=mlp",
    "model.hidden=[4]",
    "training.length=2it",
    "name=run",
    "--quiet",
)


def call(folder, *arguments, output=subprocess.PIPE, prepare=None, **environment):
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr and "fault in lth" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("arguments", [("ls",), ("--version",)])
def test_a_full_standard_output_is_named(tmp_path, arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = call(tmp_path, *arguments, output=full)
    assert done.returncode == 1
    assert "cannot write to standard output: No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_too_little_address_space_is_named(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, 600 * 2**20))

    done = call(tmp_path, "train", *TINY, prepare=limit)
    assert done.returncode == 1
    assert "not enough memory (ulimit -v allows 600 MiB)" in done.stderr


def test_figures_need_no_backend(tmp_path):
    """Figures are files: MPLBACKEND, whatever it names, is about windows."""
    code = "from lth_cli.report.figures import new_figure; new_figure().savefig('figure.png')"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "nonexistent"},
        check=True,
    )
    assert (tmp_path / "figure.png").is_file()


@pytest.mark.parametrize(
    "override,said",
    [
        ("seed=interval(0,1)", "--trials 20"),
        ("seed=tag(a,interval(0,1))", "--trials 20"),
        ("model=glob(*)", "no points that can be listed"),
        ("seed=range(0,0)", "without a single value"),
        ("seed=shuffle(range(0,0))", "without a single value"),
    ],
)
@pytest.mark.parametrize("command", [("train",), ("analyze", "run", "analysis=connectivity")])
def test_sweeps_without_points(lth, tmp_path, command, override, said):
    done = lth(*command, "-m", override)
    assert done.code == 2 and said in done.err and "fault in lth" not in done.err, done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key", ["training.batch_size", "evaluation.batch_size", "model.hidden", "data.workers"]
)
def test_integers_beyond_64_bits(lth, tmp_path, key):
    value = 10**20
    done = lth("train", f"{key}={[value] if key == 'model.hidden' else value}")
    assert done.code == 2 and key in done.err and "fault in lth" not in done.err, done.err
    assert list(tmp_path.iterdir()) == []
