"""Settings: the engine's names are the engine's; former names are read everywhere, and written
nowhere."""

from typing import ClassVar

import pytest
from pydantic import Field

from t2i.core.errors import UserError
from t2i.core.settings import STAGE_SETTINGS, WHOLE_RUN, Config, EngineConfig, ModelConfig


def test_a_model_may_not_call_something_else_as_the_engine_calls_its_own():
    with pytest.raises(
        TypeError,
        match=r"^Patchy\.keep is float, but 'keep' is a setting of the training engine \(int\)",
    ):

        class Patchy(ModelConfig):
            keep: float = 0.5

    with pytest.raises(
        TypeError, match=r"Wide\.image_size is tuple\[int, int\], but 'image_size' is a setting"
    ):

        class Wide(ModelConfig):
            image_size: tuple[int, int] = (8, 8)


def test_a_model_may_have_other_defaults_and_narrower_bounds():
    class Tuned(ModelConfig):
        steps: int = Field(77, ge=2)
        lr: float = 0.1

    class Finer(Tuned):
        steps: int = 78

    assert (Tuned().steps, Finer().steps, Finer(lr=0.2).lr) == (77, 78, 0.2)


def test_every_setting_of_the_engine_is_the_whole_runs_or_a_stages():
    assert set(EngineConfig.model_fields) == WHOLE_RUN | STAGE_SETTINGS
    assert {"batch_size", "lr_halvings", "grad_clip", "cache_views", "ema_decay"} <= STAGE_SETTINGS


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


def test_what_processes_cannot_share_is_refused_with_what_they_can():
    EngineConfig(batch_size=680, accumulate=5).check_shared(8)
    for sizes, processes, remedy in (
        ({"batch_size": 680, "accumulate": 40}, 8, "set accumulate=17,"),
        ({"batch_size": 680, "accumulate": 40}, 16, "set batch_size=640,"),
        ({"batch_size": 4}, 16, "set batch_size=16,"),
    ):
        with pytest.raises(UserError, match=f"stage gan: batch_size .*{remedy}"):
            EngineConfig(**sizes).check_shared(processes, "gan")
