"""Progress between log lines: from the first step on, at a change of stage, and on resume."""

import json
import os
import signal

import pytest

from t2i.core import engine
from t2i.core.engine import meter
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Interrupted
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


class Moved(Silent):
    """Notes all progress; `stop` is called with each status between log lines."""

    def __init__(self, stop=lambda status: None):
        self.between, self.logged, self.stop = [], [], stop

    def status(self, status):
        self.logged.append(status)

    def moved(self, status):
        self.between.append(status)
        self.stop(status)


@pytest.fixture(autouse=True)
def each_step(monkeypatch):
    monkeypatch.setattr(meter, "EVERY", 0.0)


def config(*sets):
    return resolve_config("toy", sets=["two_stages=true", "log_every=4", "steps=9", *sets])


def test_it_moves_at_every_step_and_names_the_new_stage_at_once(tmp_path):
    moved = Moved()
    engine.train(config(), tmp_path / "run", reporter=moved)
    assert [(s.stage, s.step) for s in moved.between] == [
        *(("first", step) for step in range(4)), *(("second", step) for step in range(3, 10)),
    ]  # fmt: skip
    assert [s.progress for s in moved.between[:4]] == pytest.approx([0, 1 / 9, 2 / 9, 3 / 9])
    assert [s.left is None for s in moved.between[:4]] == [True, True, True, False]
    assert [s.rate is None for s in moved.between[:2]] == [True, False]
    assert moved.between[4].losses == {}  # not those of the stage before
    assert moved.between[-1].losses == moved.logged[-1].losses
    assert [s.step for s in moved.logged] == [3, 4, 8, 9]


def test_a_budget_in_minutes_has_a_time_left_from_the_beginning(tmp_path):
    moved = Moved()
    engine.train(config("minutes=0.002"), tmp_path / "run", reporter=moved)
    assert moved.between[0].left == pytest.approx(0.12)
    assert moved.between[-1].progress == 1


def test_a_resumed_run_shows_its_share_at_once(tmp_path):
    def interrupt(status):
        if status.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"^stopped, saved at step 5; .* goes on$"):
        engine.train(config(), tmp_path / "run", reporter=Moved(interrupt))
    moved = Moved()
    engine.resume(tmp_path / "run", reporter=moved)
    first = moved.between[0]
    assert (first.stage, first.step) == ("second", 5)
    assert first.progress == pytest.approx(5 / 9)
    assert first.left > 0


def test_a_reporter_that_does_not_move_hears_of_log_lines_only(tmp_path):
    steps = []

    class Plain:
        def say(self, text):
            pass

        def status(self, status):
            steps.append(status.step)

        def close(self):
            pass

    run = engine.train(config(), tmp_path / "run", reporter=Plain())
    logged = [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()]
    assert steps == logged == [3, 4, 8, 9]
