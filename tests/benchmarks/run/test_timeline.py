"""The time left of a whole benchmark, by a clock that the test moves."""

from dataclasses import replace

import pytest

from t2i.benchmarks.run.reporter import TrainingPart, WholeCommand
from t2i.benchmarks.run.timeline import CLOSING, PACE, SETUP, STRETCH, Timeline, Work
from t2i.core.engine.status import Status


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


class Screen:
    def __init__(self):
        self.shown, self.closed = [], False

    def say(self, text):
        self.shown.append((None, None, text))

    def show(self, progress, left, parts):
        self.shown.append((progress, left, "  ".join(parts)))

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return Clock()


def two(clock, budget, images=100):
    return Timeline([Work("a", "a", budget, images), Work("b", "b", budget, images)], clock)


def test_the_time_left_is_of_all_trainings_with_sampling_and_scoring(clock):
    timeline = two(clock, 100.0)
    whole = 2 * (100 * STRETCH + SETUP) + 2 * 100 * PACE + CLOSING
    assert timeline.left() == pytest.approx(whole)
    with timeline.training("a"):
        clock.wait(20)
        assert timeline.left() == pytest.approx(whole - 20)
        timeline.done("a", 0.5, 50.0)  # half of the budget is spent
        later = 100 * STRETCH + SETUP + 2 * 100 * PACE + CLOSING
        assert timeline.left() == pytest.approx(50 * STRETCH + later)
        clock.wait(10)  # between two reports, time goes on
        assert timeline.left() == pytest.approx(50 * STRETCH - 10 + later)


def test_what_was_measured_replaces_what_was_assumed(clock):
    timeline = two(clock, 100.0)
    with timeline.training("a"):
        clock.wait(130)
    with timeline.scoring("a"):
        clock.wait(10)
        timeline.images(25)
        b = 100 * 1.3 + SETUP
        assert timeline.left() == pytest.approx(30 + b + 100 * PACE + CLOSING)
        clock.wait(30)
        timeline.images(100)
    assert timeline.left() == pytest.approx(b + 40 + CLOSING)  # b is scored as fast as a was
    with timeline.training("b"):
        clock.wait(130)
    with timeline.scoring("b"):
        timeline.images(100)
        clock.wait(1)
    assert timeline.left() == pytest.approx(CLOSING)
    assert 0.97 < timeline.progress() < 1


def test_a_budget_in_steps_is_known_once_its_pace_is(clock):
    timeline = two(clock, None)
    assert timeline.left() is None
    assert timeline.progress() is None
    with timeline.training("a"):
        clock.wait(20)
        timeline.done("a", 0.25)
        assert timeline.left() == pytest.approx(60 + 80 + 2 * 100 * PACE + CLOSING)


def test_the_pace_of_another_seed_of_a_model_counts_more_than_that_of_other_models(clock):
    works = [Work("slow", "slow", 10.0, 10), Work("fast", "fast", 10.0, 10)]
    timeline = Timeline([*works, Work("slow-seed1", "slow", 0.0, 10)], clock)
    for label, seconds in (("slow", 100), ("fast", 1)):
        with timeline.training(label):
            clock.wait(10)
        with timeline.scoring(label):
            clock.wait(seconds)
            timeline.images(10)
    assert timeline.left() == pytest.approx(100 + CLOSING)


def test_rows_that_were_there_before_take_no_time_and_say_nothing_about_others(clock):
    timeline = Timeline([Work("old", "m", 0.0, 100), Work("new", "m", 60.0, 100)], clock)
    with timeline.training("old"):
        clock.wait(1)
    with timeline.scoring("old"):
        clock.wait(1)
    assert timeline.left() == pytest.approx(60 * STRETCH + SETUP + 100 * PACE + CLOSING)
    assert "training" not in timeline.spent.get("old", {})


def test_the_parts_of_the_time_sum_to_all_of_it(clock):
    timeline = two(clock, 100.0)
    clock.wait(5)
    with timeline.training("a"):
        clock.wait(100)
    with timeline.scoring("a"):
        with timeline.spending("a", "scoring"):
            clock.wait(30)
        timeline.add("a", "sampling", 20)
        timeline.add("a", "scoring", -20)
    assert timeline.division() == {
        "all": 135, "training": 100, "sampling": 20, "scoring": 10, "rest": 5,
    }  # fmt: skip
    assert timeline.spent == {"a": {"training": 100, "scoring": 10, "sampling": 20}}


def test_the_bar_shows_the_whole_command(clock):
    timeline, screen = two(clock, 100.0), Screen()
    whole = WholeCommand(screen, timeline)
    part = TrainingPart("a", whole)
    with timeline.training("a"):
        clock.wait(50)
        part.status(Status("gan", 7, 0.5, 64.0, 50.0, {"loss": 1.0}))
        part.close()  # of this training, not of the bar
    progress, seconds, text = screen.shown[1]
    left = timeline.works[0].budget * 0.5 * STRETCH + 100 * STRETCH + SETUP + 6 + CLOSING
    assert text == "0 of 4 parts  a: gan  step 7  loss 1  64 images/s"
    assert seconds == pytest.approx(left)
    assert progress == pytest.approx(50 / (50 + left))
    with timeline.scoring("a"):
        clock.wait(1)
        timeline.images(50)
        whole.count("a, one object", 50, 100)
    assert screen.shown[2][2] == "1 of 4 parts  a, one object: 50 of 100"
    assert not screen.closed
    for doing in (timeline.training, timeline.scoring):
        with doing("b"):
            pass
    whole.close()
    assert screen.shown[-1] == (1.0, 0.0, "4 of 4 parts")
    assert screen.closed


def test_trainings_at_once_take_the_time_of_the_longest(clock):
    works = [Work(name, name, 100.0, 0, scored=0.0) for name in "abcd"]
    timeline = Timeline(works, clock, jobs=2)
    whole = 100 * STRETCH + SETUP
    assert timeline.left() == pytest.approx(2 * whole + CLOSING)
    with timeline.training("a", together=2), timeline.training("b", together=2):
        clock.wait(50)
        timeline.done("a", 0.5, 50.0)
        timeline.done("b", 0.4, 60.0)
        assert timeline.left() == pytest.approx(60 * STRETCH + whole + CLOSING)
        clock.wait(70)
    assert timeline.division()["training"] == pytest.approx(120)
    assert timeline.left() == pytest.approx(120 / 100 * 100 + SETUP + CLOSING)


def test_the_bar_shows_trainings_at_once_side_by_side(clock):
    timeline, screen = two(clock, 100.0), Screen()
    whole = WholeCommand(screen, timeline)
    parts = {name: TrainingPart(name, whole) for name in "ab"}
    status = Status("gan", 7, 0.5, 64.0, 50.0, {"loss": 1.0})
    with timeline.training("a", together=2), timeline.training("b", together=2):
        parts["a"].status(status)
        parts["b"].status(replace(status, step=9))
        parts["b"].close()
        parts["a"].status(replace(status, step=8))
    assert [text.partition(" parts  ")[2] for _, _, text in screen.shown] == [
        "preparing",
        "a: gan  step 7  loss 1  64 images/s",
        "a: gan step 7  b: gan step 9",
        "a: gan  step 8  loss 1  64 images/s",
    ]
