"""Settings: former names are read everywhere, and written nowhere; mistakes are one line."""

from typing import ClassVar

import pytest
from pydantic import Field

from t2i.core.errors import UserError
from t2i.core.settings import Config


class Inner(Config):
    renamed: ClassVar = {"narrow": "width"}

    width: int = Field(1, ge=1)
    """How wide it is."""


class Base(Config):
    renamed: ClassVar = {"speed": "rate"}

    rate: float = 1.0


class Outer(Base):
    renamed: ClassVar = {"parts": "count"}

    count: int = 1
    inner: Inner = Inner()


def test_former_names_are_read_and_those_of_today_are_written():
    made = Outer.of({"speed": 2.0, "parts": 3, "inner": {"narrow": 4}}, "test")
    assert made.model_dump() == {"rate": 2.0, "count": 3, "inner": {"width": 4}}
    assert Outer(speed=2.0).rate == 2.0
    assert Outer.of(made.model_dump(), "test") == made


def test_they_are_laid_over_others_under_either_name():
    beneath = {"rate": 5.0, "count": 7}
    assert Outer.of({"speed": 2.0}, "test", beneath).model_dump() == {
        "rate": 2.0,
        "count": 7,
        "inner": {"width": 1},
    }
    assert Outer.of({"rate": 2.0}, "test", {"speed": 5.0}).rate == 2.0


@pytest.mark.parametrize("settings", [{"speed": 1.0, "rate": 1.0}, {"rate": 1.0, "speed": 1.0}])
def test_both_names_at_once_are_refused(settings):
    with pytest.raises(
        UserError, match=r"^test: 'speed' is the former name of 'rate': give one of them$"
    ):
        Outer.of(settings, "test")
    with pytest.raises(UserError, match="'narrow' is the former name of 'width'"):
        Outer.of({"inner": {"narrow": 1, "width": 1}}, "test")


def test_mistakes_name_the_setting_of_today():
    with pytest.raises(UserError, match=r"no setting is named 'reight'"):
        Outer.of({"reight": 1}, "test")
    with pytest.raises(
        UserError, match=r"no setting is named 'inner\.widht'; did you mean 'inner\.width'\?"
    ):
        Outer.of({"inner": {"widht": 1}}, "test")
    with pytest.raises(UserError, match=r"setting 'inner\.width' = 0"):
        Outer.of({"inner": {"narrow": 0}}, "test")


def test_a_list_and_names_with_values_are_asked_for_in_plain_words():
    class Asked(Config):
        levels: tuple[int, ...] = ()
        weights: dict[str, float] = Field({})

    with pytest.raises(UserError, match=r"'levels' = '1,2': it takes a list, such as \[1,2\]"):
        Asked.of({"levels": "1,2"}, "test")
    with pytest.raises(UserError, match="'weights' = 3: it takes names and values"):
        Asked.of({"weights": 3}, "test")


def test_the_docstring_under_a_field_describes_it():
    assert Inner.model_fields["width"].description == "How wide it is."
