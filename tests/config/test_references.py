"""The grammar of states."""

import pytest

from lth_cli.config.references import Reference
from lth_cli.config.steps import Duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imp", Reference("imp")),
        ("imp:3", Reference("imp", None, 3)),
        ("imp:last@500it", Reference("imp", None, "last", Duration(iterations=500))),
        ("imp:random/3@start", Reference("imp", "random", 3, "start")),
        ("imp@1ep2it", Reference("imp", None, "last", Duration(1, 2))),
        ("imp:best", Reference("imp", None, "best")),
        ("/a/b@c/imp:0@0", Reference("/a/b@c/imp", None, 0, Duration())),
        ("a:b", Reference("a:b")),
    ],
)
def test_parse(text: str, expected: Reference) -> None:
    found = Reference.parse(text)
    assert found == expected
    assert Reference.parse(str(found)) == expected


@pytest.mark.parametrize("text", ["", "  ", ":3", "imp@", "imp@5", "imp:3@half", "imp@-1it"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RUN:ROUND@STEP|start, end"):
        Reference.parse(text)
