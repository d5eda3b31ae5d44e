"""The notebook of the docs has been executed, and its cells still run."""

import json
import math
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_the_cells_of_the_notebook_run(tmp_path, monkeypatch) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert set(kinds) == {"execute_result", "display_data"} and NOTEBOOK.stat().st_size < 60_000

    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert Path.cwd() != tmp_path and (Path.cwd() / "runs" / "ticket").is_dir()
    measured = float(names["right"].float().mean())
    ticket = names["table"][names["table"].kind == "ticket"]
    assert math.isclose(measured, ticket.test_accuracy.iloc[-1], abs_tol=1e-6)
    assert len(names["answer"]) == 3
