"""Scores while training: when they are made, what they decide, and that they change nothing."""

import json
import os
import random
import signal
import sys

import numpy as np
import pytest
import torch

from t2i.core import engine
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.reporting import Silent
from t2i.core.engine.scores import Score
from t2i.core.engine.scoring import StageScores
from t2i.core.engine.stage import StageRun
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.json_files import read_json
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")


class Examiner:
    """Gives the scores of a list, in turn, with an interval of 1 to either side."""

    names = ("quality",)
    images = 4

    def __init__(self, values, work=lambda number: None, higher=True):
        self.values, self.work, self.higher, self.weights = values, work, higher, []

    def __call__(self, config):
        return self

    def scores(self, model):
        self.weights.append(model.generator.out.bias.detach().clone())
        assert not model.generator.training
        torch.rand(3), np.random.rand(3), random.random()
        self.work(len(self.weights))
        value = self.values.pop(0)
        return {"quality": Score(value, (value - 1, value + 1), 4, self.higher, "quality of 4")}


class Lines(Silent):
    def __init__(self):
        self.texts, self.notes = [], []

    def say(self, text):
        self.texts.append(text)

    def status(self, status):
        self.notes.append(status.note)


def config(*sets):
    return resolve_config("toy", sets=["steps=8", "log_every=2", "score_every=2", *sets])


def train(out, values, *sets, reporter=None, **more):
    examiner = Examiner(values, **more)
    run = engine.train(config(*sets), out, reporter=reporter or Silent(), examining=examiner)
    return run, examiner


def scored(run):
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [(line["step"], line["scores"]) for line in lines if "scores" in line]


def warnings(lines):
    return [text for text in lines.texts if text.startswith("warning")]


def weights(run):
    return (run.model / "generator.safetensors").read_bytes()


@pytest.fixture
def validated(toy, monkeypatch):
    """The toy has a validation loss."""
    trainer = sys.modules["t2i_toy"].Trainer

    def validation(self, batch, engine):
        torch.rand(2)
        return {"generator": self.step(batch, engine)["generator"]}

    monkeypatch.setattr(trainer, "validation", validation)


@pytest.mark.usefixtures("validated")
def test_they_are_logged_and_shown_and_training_is_the_same_to_the_bit(tmp_path):
    plain = engine.train(config("score_every=null", "ema_decay=0.9"), tmp_path / "plain")
    lines = Lines()
    run, examiner = train(tmp_path / "run", [3.0, 5, 4, 7], "ema_decay=0.9", reporter=lines)
    assert weights(run) == weights(plain)
    found = scored(run)
    assert [step for step, _ in found] == [2, 4, 6, 8]
    assert found[1][1]["quality"] == {
        "value": 5.0, "interval": [4.0, 6.0], "count": 4, "better": "high", "title": "quality of 4",
    }  # fmt: skip
    loss = found[1][1]["validation.generator"]
    assert loss["better"] == "low"
    assert loss["interval"][0] < loss["value"] < loss["interval"][1]
    assert loss["title"] == f"generator of {loss['count']} held-out examples"
    assert "quality of 4: 5 (4 to 6)" in lines.notes
    # The averaged weights are scored, not those that are trained.
    _raw, other = train(tmp_path / "raw", [3.0, 5, 4, 6], "ema_decay=0")
    assert not torch.equal(other.weights[0], examiner.weights[0])
    assert run.summary()["scoring_seconds"] > 0
    assert run.summary()["best_score"]["step"] == 8


@pytest.mark.usefixtures("validated")
def test_validation_alone_needs_no_examiner_and_is_of_the_same_examples(tmp_path):
    run = engine.train(config("lr=0"), tmp_path / "run", reporter=Silent())
    values = [found["validation.generator"]["value"] for _, found in scored(run)]
    assert len(values) == 4
    assert len(set(values)) == 1


@pytest.mark.usefixtures("validated")
def test_validation_by_the_clock_waits_for_no_samples_and_does_not_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(StageScores, "_validation_due", lambda self: True)
    monkeypatch.setattr(StageScores, "_samples_due", lambda self: self._context.state.step == 5)
    sets = ("score_every=null", "stop_after=1")
    run, _ = train(tmp_path / "run", [5.0], *sets)
    names = [list(found) for _, found in scored(run)]
    assert [len(own) for own in names] == [1, 1, 1, 1, 2, 1, 1, 1]
    assert names[0] == ["validation.generator"]
    assert run.summary()["best_score"]["name"] == "quality"
    assert run.summary()["steps"] == 8


def test_without_a_validation_loss_nothing_is_logged(tmp_path):
    run = engine.train(config(), tmp_path / "run", reporter=Silent())
    assert scored(run) == []


def test_a_signal_cuts_it_short_and_resuming_scores_this_step_again(tmp_path):
    values = [3.0, 5, 4, 6]
    whole, _ = train(tmp_path / "whole", list(values), "keep_best=quality")

    def stop(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="step 4"):
        train(tmp_path / "run", list(values), "keep_best=quality", work=stop)
    run = engine.resume(tmp_path / "run", reporter=Silent(), examining=Examiner(values[1:]))
    assert scored(run) == scored(whole)
    assert weights(run) == weights(whole)
    assert run.summary()["best_score"] == whole.summary()["best_score"]


def test_the_best_checkpoint_is_that_of_a_score_and_a_tie_keeps_the_earlier(tmp_path):
    run, examiner = train(tmp_path / "run", [3.0, 5, 5.9, 4], "keep_best=quality", "keep=1")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-4", "step-8"]
    best = load_tensors(run.best / "generator.safetensors", "best")
    assert torch.equal(best["out.bias"], examiner.weights[1])
    state = read_json(run.checkpoints / "step-8" / "state.json", "state")
    assert state["best"] == [4, 5.0]


def test_a_stage_stops_early_and_a_longer_budget_goes_on(tmp_path):
    lines = Lines()
    values = [9.0, 5, 4.5, 4.2, 1]
    sets = ("stop_after=2", "steps=20", "log_every=50")
    run, _ = train(tmp_path / "run", values, *sets, reporter=lines, higher=False)
    # 5 beats 9; 4.5 and 4.2 are within its interval.
    assert [step for step, _ in scored(run)] == [2, 4, 6, 8]
    assert run.summary()["steps"] == 8
    assert run.summary()["stages"][0]["stopped_early"]
    (said,) = [text for text in lines.texts if "stopped early" in text]
    assert "the last 2 scores 'quality'" in said
    assert "quality of 4: 5 (4 to 6), step 4" in said
    logged = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in logged if "losses" in line] == [8]
    examiner = Examiner([1.0] * 9, higher=False)
    longer = engine.resume(run.path, steps=30, reporter=Silent(), examining=examiner)
    assert longer.summary()["steps"] > 8


def test_a_killed_run_stops_at_the_same_step(tmp_path, monkeypatch):
    sets = ("stop_after=2", "steps=20", "checkpoint_every=3")
    whole, _ = train(tmp_path / "whole", [3.0, 5, 5, 4], *sets)
    step = StageRun._step
    with monkeypatch.context() as patch:

        def killed(self, hosts):
            if self.context.state.step == 7:
                raise Interrupted("killed", 9)
            step(self, hosts)

        patch.setattr(StageRun, "_step", killed)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", [3.0, 5, 5], *sets)
    # It goes back to step 6, which was scored.
    run = engine.resume(tmp_path / "run", reporter=Silent(), examining=Examiner([4.0]))
    assert scored(run) == scored(whole)
    assert run.summary()["steps"] == whole.summary()["steps"] == 8
    assert weights(Run(run.path)) == weights(whole)


@pytest.mark.usefixtures("validated")
@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("too few images"), "too few images"),
     (RuntimeError("out of memory"), "RuntimeError: out of memory")],
)  # fmt: skip
def test_scores_that_fail_are_said_once_and_training_goes_on(tmp_path, error, said):
    def fail(number):
        raise error

    lines = Lines()
    run, _ = train(tmp_path / "run", [1.0], reporter=lines, work=fail)
    assert warnings(lines) == [f"warning: samples are not scored: {said}"]
    assert [list(found) for _, found in scored(run)] == [["validation.generator"]] * 4


def test_a_validation_that_fails_stops_nothing_and_leaves_the_weights_alone(tmp_path, monkeypatch):
    def validation(self, batch, engine):
        torch.rand(3)
        raise RuntimeError("no")

    monkeypatch.setattr(sys.modules["t2i_toy"].Trainer, "validation", validation)
    lines = Lines()
    plain = engine.train(config("score_every=null"), tmp_path / "plain", reporter=Silent())
    run, _ = train(tmp_path / "run", [1.0] * 4, reporter=lines)
    assert warnings(lines) == ["warning: held-out examples are not scored: RuntimeError: no"]
    assert [list(found) for _, found in scored(run)] == [["quality"]] * 4
    assert weights(run) == weights(plain)


@pytest.mark.usefixtures("validated")
@pytest.mark.parametrize(
    ("name", "said"),
    [("validation.generatr", "is scored by quality, validation.generator only"),
     ("qality", "logs generator, critic, quality only")],
)  # fmt: skip
def test_a_score_that_is_never_made_is_warned_about_once(tmp_path, name, said):
    lines = Lines()
    run, _ = train(tmp_path / "run", [1.0] * 4, f"keep_best={name}", reporter=lines)
    assert warnings(lines) == [f"warning: keep_best={name}: stage only {said}"]
    assert not run.best.exists()


def test_a_setting_without_scores_is_warned_about(tmp_path):
    lines = Lines()
    sets = ("keep_best=validation.generator", "stop_after=2")
    engine.train(config(*sets), tmp_path / "run", reporter=lines)
    assert [text.split()[1] for text in warnings(lines)] == ["keep_best", "stop_after"]


@pytest.mark.parametrize(
    ("value", "higher", "better"),
    [(6.1, True, True), (5.9, True, False), (3.9, False, True), (4.1, False, False),
     (float("nan"), True, False)],
)  # fmt: skip
def test_better_means_beyond_the_interval(value, higher, better):
    best = Score(5.0, (4.0, 6.0), 4, higher, "x")
    assert Score(value, None, 4, higher, "x").beats(best) is better
    assert Score.of(best.document()) == best


def test_the_first_one_waits_until_its_expected_cost_is_a_small_share():
    now = 0.0
    clock = GridClock(60, lambda: now, first=60, share=0.05)
    clock.expect(6.0)
    now = 119.0
    assert not clock.due()
    now = 121.0
    assert clock.due()
    with clock.drawing():
        now += 1.0
    clock.expect(100.0)  # known by now
    now = 181.0
    assert not clock.due()
    now = 183.0
    assert clock.due()
