"""Tables of any width: what is left out, what is shortened, and that no name or number is ever broken."""

import io
import re

import pytest
from rich.console import Console

from lth_cli.report.layout import Column, fit, print_table, shortened

COLUMNS = [
    Column("run", ["prune-rewind_to_500it-seed_0", "b"], right=False),
    Column("command", ["prune", "train"], right=False, dispensable=3),
    Column("state", ["interrupted", "finished"], right=False),
    Column("test accuracy (%)", ["95.06 ± 1.03", "100.00"]),
    Column("created", ["2026-11-26 14:03"] * 2, right=False, dispensable=4),
]


def drawn(columns, width):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    print_table(columns, console=console)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100, 200])
def test_every_number_is_whole_on_a_line_of_its_run(width):
    text = drawn(COLUMNS, width)
    body = text.split("No room for")[0]
    assert max(map(len, body.splitlines())) <= width
    assert sum("95.06 ± 1.03" in line for line in body.splitlines()) == 1
    assert len([line for line in body.splitlines() if line.strip()]) % 4 == 0  # heading, rule, a line a run
    if width >= 100:
        assert "No room" not in text and "prune-rewind_to_500it-seed_0" in text


def test_what_matters_least_goes_first_and_is_named():
    text = drawn(COLUMNS, 65)
    assert "No room for: created, command" in text
    assert "prune-rewind_to_500it-seed_0" in text and "interrupted" in text


def test_names_are_shortened_in_the_middle():
    assert shortened("prune-lr_0.1-seed_12", 11) == "prune…ed_12"
    assert shortened("short", 5) == "short"
    assert shortened("四四四四四四", 5) == "四…四"


def test_columns_that_need_several_tables_repeat_what_tells_the_rows_apart():
    numbers = [Column(f"kind {number}", ["95.06 ± 1.03"]) for number in range(5)]
    tables, left_out = fit([Column("round", ["3"], repeated=True), *numbers], 40)
    assert left_out == []
    assert [[column.title for column in table] for table in tables] == [
        ["round", "kind 0", "kind 1"],
        ["round", "kind 2", "kind 3"],
        ["round", "kind 4"],
    ]


def test_short_values_are_whole_in_further_tables_and_long_ones_are_shortened():
    key = Column("differs", ["optimizer.lr"], right=False, repeated=True)
    values = [Column(letter, ["0.00123456789"], right=False, whole=True) for letter in "ABC"]
    assert [len(table) for table in fit([key, *values], 40)[0]] == [2, 2, 2]
    (table,), _ = fit([key, Column("A", ["x" * 100], right=False)], 40)
    assert (table[0].cells[0], table[1].width) == ("optimizer.lr", 24)


def test_a_pipe_gets_whole_lines_with_tabs(capsys):
    print_table(COLUMNS)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == [column.title for column in COLUMNS]
    assert lines[1] == [
        "prune-rewind_to_500it-seed_0",
        "prune",
        "interrupted",
        "95.06 ± 1.03",
        "2026-11-26 14:03",
    ]
