"""Means over runs say nothing where one run says nothing."""

from lth_cli.analyses.tables import mean_of, spread_of
from lth_cli.analyses.yardstick import below


def test_a_barrier_that_is_not_finite_in_one_run_leaves_no_mean_and_connects_nothing() -> None:
    rows = [{"barrier": 0.01}, {"barrier": None}, {"barrier": 0.03}]
    assert mean_of(rows, "barrier") is None
    assert spread_of(rows, "barrier") is None
    assert not below(mean_of(rows, "barrier"), 0.02)
    assert mean_of([rows[0], rows[2]], "barrier") == 0.02
