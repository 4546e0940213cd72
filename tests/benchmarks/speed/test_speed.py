"""`bench speed`, on the real engine: what it does, not how fast it is."""

import json
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from t2i.benchmarks.run.operations import step_operations
from t2i.benchmarks.speed import speed
from t2i.benchmarks.speed.speed import measure_speed
from t2i.core.errors import UserError
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def twins(monkeypatch):
    """The bare loops that were built."""
    built = []

    class Watched(speed.Twin):
        def __init__(self, config, number):
            super().__init__(config, number)
            self.before = [p.detach().clone() for p in self.averaged]
            built.append(self)

    monkeypatch.setattr(speed, "Twin", Watched)
    return built


def test_engine_and_bare_loop_take_turns(tmp_path, words, twins):
    out = tmp_path / "speed.json"
    speeds = measure_speed("toy", blocks=3, out=out, reporter=words)
    ((model,), document) = speeds.models, json.loads(out.read_text())
    assert (model.model, [(stage.stage, stage.batch_size) for stage in model.stages]) == (
        "toy",
        [("only", 4)],
    )
    (stage,) = model.stages
    assert (
        min(stage.data, stage.waiting, stage.engine, stage.bare, stage.ratio, model.drawing.seconds)
        > 0
    )
    assert document["models"][0]["stages"][0]["ratio"] == stage.ratio
    config = resolve_config("toy")
    assert stage.operations == step_operations(config, batch_size=4) > 0
    assert stage.alone > 0
    assert stage.share > 0
    (twin,) = twins
    assert twin.done == 2 + 4 * speed.BLOCK  # 3 that count, one to warm up
    assert all(
        (p != q).any() for p, q in zip(twin.averaged, twin.before, strict=True)
    )  # it does train
    assert all(
        (p != q).any() for p, q in zip(twin.averages, twin.before, strict=True)
    )  # and average
    with (tmp_path / "text").open("w") as file:
        speeds.show(Console(width=100, file=file))
    shown = (tmp_path / "text").read_text()
    assert "only" in shown
    assert "share of that rate" in shown


def test_each_stage_gets_its_blocks(words, twins, monkeypatch):
    configured = speed._short
    monkeypatch.setattr(
        speed,
        "resolve_config",
        lambda name, preset: resolve_config(
            name, preset=preset, sets=["two_stages=true", "accumulate=2"]
        ),
    )
    config = speed.resolve_config("toy", preset="tiny")
    assert configured(config, speed._stages(config), 2).settings.steps == 302  # 100 + 200, and ends
    (model,) = measure_speed(["toy"], blocks=2, reporter=words).models
    assert [stage.stage for stage in model.stages] == ["first", "second"]
    part = step_operations(config, "second", batch_size=2)  # accumulate=2 makes two of them
    assert model.stages[1].operations == 2 * part > 0
    assert len(twins) == 2


def test_what_cannot_be_timed_is_refused(words):
    with pytest.raises(UserError, match="at least 2"):
        measure_speed("toy", blocks=1, reporter=words)
    with pytest.raises(UserError, match="did you mean 'toy'"):
        measure_speed("toi", reporter=words)


@pytest.fixture
def stageless(toy, plug):
    """A second model, `still`, which is the toy with nothing to train."""
    parts = sys.modules["t2i_toy"]
    parts.no_stages = lambda config, encoder: []
    spec = replace(registry().models["toy"], name="still", stages="t2i_toy:no_stages")

    class Plugin:
        @hookimpl
        def t2i_models(self):
            return [spec]

    plug(Plugin(), "still")


@pytest.mark.usefixtures("stageless")
def test_a_model_without_stages_is_sampled_alone_and_stops_no_other(
    tmp_path, words, twins, monkeypatch
):
    monkeypatch.setattr(speed, "named_models", lambda models: ["still", "toy"])
    speeds = measure_speed("all", blocks=2, out=tmp_path / "speed.json", reporter=words)
    assert [(model.model, len(model.stages)) for model in speeds.models] == [
        ("still", 0),
        ("toy", 1),
    ]
    assert speeds.models[0].drawing.seconds > 0
    assert any("still: it has no training stage" in text for text in words.lines)
    with (tmp_path / "text").open("w") as file:
        speeds.show(Console(width=100, file=file))
    shown = (tmp_path / "text").read_text()
    assert "still" in shown
    assert "toy: only" in shown


@pytest.mark.usefixtures("stageless")
def test_a_model_without_stages_alone(words):
    (model,) = measure_speed("still", reporter=words).models
    assert (model.model, model.stages) == ("still", [])


@pytest.mark.usefixtures("stageless")
def test_one_that_cannot_be_sampled_either_is_left_out_with_a_line(words, monkeypatch):
    def refuses(config):
        raise UserError("no weights")

    monkeypatch.setattr(speed, "measure_drawing", refuses)
    assert measure_speed("still", reporter=words).models == []
    assert words.lines[-1] == "still: left out, it cannot be sampled as it is built (no weights)"
