"""Settings of a model: the engine's names are the engine's."""

import pytest
from pydantic import Field

from t2i.core.settings import ModelConfig
from t2i.core.settings.engine import STAGE_SETTINGS, WHOLE_RUN, EngineConfig


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
