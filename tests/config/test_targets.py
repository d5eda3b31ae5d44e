from typing import Annotated, Any

import pytest
from pydantic import Field

from lth_cli.config.errors import ConfigError
from lth_cli.config.steps import Duration
from lth_cli.config.targets import check_arguments, locate
from lth_cli.config.values import Steps

NO_STEPS = Duration()


def function(place, *, size: int, share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5, at: Steps = NO_STEPS):
    return place, size, share, at


class Built:
    def __init__(self, width: int, names: list[str] | None = None, **more: Any):
        self.width = width


def unresolved(size: "NoSuchType"):  # noqa: F821
    return size


def check(**arguments):
    return check_arguments(function, arguments, "section", supplied=("place",))


def test_arguments_are_converted_to_their_annotations():
    assert check(size=3, at="2ep") == {"size": 3, "at": Duration(epochs=2)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "section.size: is required"),
        ({"size": "3"}, "section.size: Input should be a valid integer, got '3'"),
        ({"size": 1.0}, "section.size: Input should be a valid integer, got 1.0"),
        ({"size": 1, "share": 2.0}, "section.share: Input should be less than or equal to 1, got 2.0"),
        ({"size": 1, "share": float("nan")}, "section.share: Input should be"),
        ({"size": 1, "siz": 2}, "section.siz: unknown key; did you mean 'size'? accepted: size, share, at"),
        ({"size": 1, "place": 2}, "section.place: unknown key"),
        ({"size": 1, "at": "soon"}, "500it"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError) as caught:
        check(**arguments)
    assert message in str(caught.value)


def test_every_wrong_argument_at_once():
    with pytest.raises(ConfigError) as caught:
        check(share="a", other=1)
    assert [path for path, _ in caught.value.problems] == ["section.share", "section.other", "section.size"]


def test_classes_and_open_ended_ones():
    assert check_arguments(Built, {"width": 1, "depth": 2}, "model") == {"width": 1, "depth": 2}
    with pytest.raises(ConfigError, match=r"model\.names\.1: "):
        check_arguments(Built, {"width": 1, "names": ["a", 2]}, "model")
    with pytest.raises(ConfigError, match=r"model\.self: unknown key"):
        check_arguments(function, {"size": 1, "self": 2}, "model", supplied=("place",))


def test_foreign_annotations_that_do_not_resolve_leave_names_checked():
    assert check_arguments(unresolved, {"size": "anything"}, "model") == {"size": "anything"}
    with pytest.raises(ConfigError, match="unknown key"):
        check_arguments(unresolved, {"size": 1, "sise": 1}, "model")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("SGD", "is not an import path"),
        ("torch.optim.SGDD", "has no 'SGDD'; close to it: SGD"),
        ("torch.optin.SGD", "cannot import 'torch.optin'"),
        ("nowhere.x", "cannot import 'nowhere'"),
        ("math.pi", "cannot be called"),
        ("", "is not an import path"),
        (".x", "is not an import path"),
        ("..x", "cannot import"),
        ("os.path", "cannot be called"),
        ("torch..SGD", "cannot import"),
    ],
)
def test_what_cannot_be_located(path, message):
    with pytest.raises(ConfigError) as caught:
        locate(path, "optimizer._target_")
    assert str(caught.value).startswith("optimizer._target_: ")
    assert message in str(caught.value)


def test_locate():
    assert locate("collections.OrderedDict", "x").__name__ == "OrderedDict"


def test_a_module_that_fails_to_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_room.py").write_text("raise ValueError('half written')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="half written"):
        locate("broken_room.model", "model._target_")
