"""What is installed: quick to start, complete, and with every dependency declared."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "hydra", "omegaconf", "pydantic", "matplotlib", "sklearn", "torchvision")


def test_the_program_starts_without_anything_heavy(tmp_path):
    code = "import sys, json, lth_cli.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert set(json.loads(done.stdout)).isdisjoint(HEAVY)


def test_completion_never_imports_torch(tmp_path):
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from lth_cli.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "COMP_WORDS": "lth\nprune\nmodel\n=\nresnet2",
            "COMP_CWORD": "4",
            "_LTH_COMPLETE": "complete_bash",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["resnet20"]
    assert done.stderr.split() == ["False"]


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name in extras if name != "dev" for text in extras[name])]
    declared = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower().replace("_", "-") for text in texts}
    providers = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in (ROOT / "lth_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name in sys.stdlib_module_names or name in ("lth_cli", "__future__"):
                    continue
                if not {found.lower().replace("_", "-") for found in providers.get(name, [name])} & declared:
                    undeclared.add(name)
    assert undeclared == set()


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="building a wheel needs hatchling")
def test_a_wheel_works_from_any_folder(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        names = archive.namelist()
    assert "lth_cli/configs/defaults.yaml" in names
    packaged = {name.removeprefix("lth_cli/") for name in names if name.startswith("lth_cli/configs/")}
    assert packaged == {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert not any(name.startswith(("tests", "configs", "runs", "docs")) for name in names)
    (tmp_path / "elsewhere").mkdir()
    code = "import lth_cli, sys; print(lth_cli.__file__, file=sys.stderr); from lth_cli.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "prune", "--cfg", "job", "experiment=demo"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(str(tmp_path / "installed")), done.stderr
    assert done.returncode == 0, done.stderr
    assert "kinds:\n  - reinit" in done.stdout
