"""`bench speed`, on the real engine: what it does, not how fast it is."""

import json

import pytest
from rich.console import Console

from t2i.benchmarks.speed import speed
from t2i.benchmarks.speed.speed import measure_speed
from t2i.core.errors import UserError
from t2i.core.runs.configure import resolve

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def twins(monkeypatch):
    """The bare loops that were built."""
    built = []

    class Watched(speed._Twin):
        def __init__(self, config, number):
            super().__init__(config, number)
            self.before = [p.detach().clone() for p in self._averaged]
            built.append(self)

    monkeypatch.setattr(speed, "_Twin", Watched)
    return built


def test_engine_and_bare_loop_take_turns(tmp_path, words, twins):
    out = tmp_path / "speed.json"
    speeds = measure_speed("toy", blocks=3, out=out, reporter=words)
    ((model,), document) = speeds.models, json.loads(out.read_text())
    assert (model.model, [(stage.stage, stage.batch_size) for stage in model.stages]) == ("toy", [("only", 4)])
    (stage,) = model.stages
    assert min(stage.data, stage.waiting, stage.engine, stage.bare, stage.ratio, model.drawing.seconds) > 0
    assert document["models"][0]["stages"][0]["ratio"] == stage.ratio
    (twin,) = twins
    assert twin.done == 2 + 4 * speed.BLOCK  # 3 that count, one to warm up
    assert all((p != q).any() for p, q in zip(twin._averaged, twin.before, strict=True))  # it does train
    assert all((p != q).any() for p, q in zip(twin._averages, twin.before, strict=True))  # and average
    with (tmp_path / "text").open("w") as file:
        speeds.show(Console(width=100, file=file))
    assert "only" in (tmp_path / "text").read_text()


def test_each_stage_gets_its_blocks(words, twins, monkeypatch):
    configured = speed._short
    monkeypatch.setattr(
        speed, "resolve", lambda name, preset: resolve(name, preset=preset, sets=["two_stages=true", "accumulate=2"])
    )
    config = speed.resolve("toy", preset="tiny")
    assert configured(config, speed._stages(config), 2).settings.steps == 302  # 100 + 200, and ends
    (model,) = measure_speed(["toy"], blocks=2, reporter=words).models
    assert [stage.stage for stage in model.stages] == ["first", "second"]
    assert len(twins) == 2


def test_what_cannot_be_timed_is_refused(words):
    with pytest.raises(UserError, match="at least 2"):
        measure_speed("toy", blocks=1, reporter=words)
    with pytest.raises(UserError, match="did you mean 'toy'"):
        measure_speed("toi", reporter=words)
