"""The figure of `lth analyze analysis=agreement`."""

from __future__ import annotations

from typing import Any

from lth_cli.analyses.drawing import Tables, finish, number


def draw(figure: Any, tables: Tables, summary: dict[str, Any]) -> bool:
    """Accuracy of every network, and how many examples have at least so much disagreement, a colour a round."""
    accuracy, ambiguity = figure.subplots(1, 2)
    rounds = [row["round"] for row in tables["accuracy"]]
    for index, name in enumerate(rounds):
        values = [100 * number(row, "accuracy") for row in tables["networks"] if row["round"] == name]
        accuracy.plot([index] * len(values), values, "o", color=f"C{index}", alpha=0.6)
        accuracy.plot([index - 0.2, index + 0.2], [sum(values) / len(values)] * 2, color=f"C{index}")
        differ = [number(row, "disagreement") for row in tables["examples"] if row["round"] == name]
        ambiguous = sorted((share for share in differ if share > 0), reverse=True)
        shares = [100 * (position + 1) / len(differ) for position in range(len(ambiguous))]
        ambiguity.plot(shares, ambiguous, color=f"C{index}", label=f"round {name}")
    accuracy.set_xticks(range(len(rounds)), rounds)
    accuracy.set_xlim(-0.5, len(rounds) - 0.5)
    finish(accuracy, "round", "accuracy (%)")
    finish(ambiguity, "examples (%)", "disagreement d(x), sorted")
    return True
