import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_cli.config.steps import Duration, parse_rounds

durations = st.builds(Duration, st.integers(0, 10**12), st.integers(0, 10**12))


@given(durations)
def test_a_duration_is_read_back_as_written(duration):
    assert Duration.parse(str(duration)) == duration


@given(durations, st.integers(1, 10_000))
def test_epochs_resolve_to_steps(duration, steps_per_epoch):
    assert duration.steps(steps_per_epoch) == duration.epochs * steps_per_epoch + duration.iterations
    assert bool(duration) == (duration.steps(steps_per_epoch) > 0)


@pytest.mark.parametrize(
    ("text", "steps", "spelling"),
    [
        ("500it", 500, "500it"),
        ("2ep", 48, "2ep"),
        ("1ep50it", 74, "1ep50it"),
        ("0", 0, "0it"),
        (0, 0, "0it"),
        ("0it", 0, "0it"),
        ("0ep", 0, "0it"),
        ("007it", 7, "7it"),
        (" 3it ", 3, "3it"),
    ],
)
def test_grammar(text, steps, spelling):
    duration = Duration.parse(text)
    assert duration.steps(24) == steps
    assert str(duration) == spelling
    assert Duration.parse(duration) is duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "500",
        500,
        1.5,
        True,
        False,
        None,
        "-1it",
        "1it1ep",
        "1.5ep",
        "1 ep",
        "it",
        "ep",
        "1e3it",
        "1EP",
        [],
        {},
    ],
)
def test_anything_else_is_refused_with_the_grammar(text):
    with pytest.raises(ValueError, match="500it"):
        Duration.parse(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_parser(text):
    try:
        assert Duration.parse(Duration.parse(text)) == Duration.parse(text)
    except ValueError as error:
        assert repr(text) in str(error)


def test_longer_than_any_training():
    with pytest.raises(ValueError, match="longer than any"):
        Duration.parse("9999999999999it")


@pytest.mark.parametrize(
    ("text", "rounds"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("last", [5]),
        ("3", [3]),
        ("0-2", [0, 1, 2]),
        ("4,1-2", [1, 2, 4]),
        ("1-3,2-5", [1, 2, 3, 4, 5]),
        (" 1 , 2 ", [1, 2]),
    ],
)
def test_round_ranges(text, rounds):
    assert parse_rounds(text, last=5) == rounds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "last round is 5"),
        ("2-6", "last round is 5"),
        ("3-1", "write 1-3"),
        ("", "not a range"),
        ("a", "not a range"),
    ],
)
def test_wrong_round_ranges_say_what_would_do(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rounds(text, last=5)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_any_set_of_rounds_can_be_written(rounds):
    assert parse_rounds(",".join(map(str, rounds)), last=40) == sorted(rounds)
