"""The observer of a run: when it is called, with which weights, and what it leaves as it was."""

import os
import signal

import pytest
import torch

from t2i.core import engine
from t2i.core.errors import Interrupted
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


class Watching:
    """Notes every moment; samples at every second step, and draws random numbers meanwhile."""

    def __init__(self, work=lambda moment: None):
        self.moments, self.images, self.modes, self.work = [], [], set(), work

    def due(self, moment):
        self.moments.append(moment)
        return moment.step % 2 == 0

    def observe(self, moment, model, say):
        self.modes.add(model.generator.training)
        torch.rand(3)
        self.images.append((moment.step, model.generator.out.bias.detach().clone()))
        self.work(moment)


def config(*sets):
    return resolve_config("toy", sets=["two_stages=true", "log_every=1", "steps=9", *sets])


def test_it_is_called_before_each_step_of_each_stage(tmp_path):
    watching = Watching()
    engine.train(config(), tmp_path / "run", observer=watching)
    assert [(m.step, m.stage, m.last) for m in watching.moments] == [
        *((step, "first", False) for step in range(3)),
        *((step, "second", True) for step in range(3, 9)),
    ]
    last = watching.moments[-1]
    assert last.steps == {"first": 3, "second": 5}
    assert 0 < last.stage_seconds < last.seconds


def test_it_sees_the_averages_in_evaluation_mode_and_changes_nothing(tmp_path):
    watching = Watching()
    plain = engine.train(config("ema_decay=0.9"), tmp_path / "plain")
    seen = engine.train(config("ema_decay=0.9"), tmp_path / "seen", observer=watching)
    assert watching.modes == {False}
    weights = [(run.model / "generator.safetensors").read_bytes() for run in (plain, seen)]
    assert weights[0] == weights[1]
    raw = Watching()
    engine.train(config("ema_decay=0"), tmp_path / "raw", observer=raw)
    assert not torch.equal(raw.images[-1][1], watching.images[-1][1])


def test_a_signal_cuts_it_short_and_it_is_called_again_at_this_step(tmp_path):
    def stop(moment):
        if moment.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    watching = Watching(stop)
    with pytest.raises(Interrupted, match="stopped, saved at step 4"):
        engine.train(config(), tmp_path / "run", observer=watching)
    again = Watching()
    engine.resume(tmp_path / "run", observer=again)
    assert [step for step, _ in again.images] == [4, 6, 8]
    assert torch.equal(again.images[0][1], watching.images[-1][1])


def test_an_exception_ends_the_run_which_can_be_resumed(tmp_path):
    class Enough(Exception):
        pass

    def enough(moment):
        if moment.step == 6:
            raise Enough

    with pytest.raises(Enough):
        engine.train(config(), tmp_path / "run", observer=Watching(enough))
    assert engine.resume(tmp_path / "run").complete
