"""What a log says over its steps."""

import pytest

from t2i.web.watch import history as module
from t2i.web.watch.history import Curve, History, smoothed


def entry(step, **more):
    return {"stage": "gan", "step": step, "seconds": 2.0 * step, "images_per_second": 8.0, **more}


def test_losses_and_speed_are_kept_by_stage():
    history = History()
    history.add(entry(1, losses={"real": 0.5, "fake": None}))
    history.add({**entry(2, losses={"real": 0.25}), "stage": "refine"})
    assert history.losses["gan", "real"].points == [(1.0, 0.5)]
    assert history.losses["refine", "real"].last == 0.25
    assert (history.stage, history.lost, history.speed.last) == ("refine", 1, 8.0)


def test_scores_are_read_leniently():
    history = History()
    history.add({"step": 5, "scores": {"all right": {"value": 12, "interval": [15, 9]}, "FD": 3.5,
                                       "bad": {"value": "x"}, "half": {"value": 1, "interval": [1]},
                                       "none": None}})  # fmt: skip
    history.add({"step": 6, "scores": "what"})
    assert history.scores["all right"] == [module.ScorePoint(5, 12, (9, 15))]
    assert history.scores["FD"] == [module.ScorePoint(5, 3.5, None)]
    assert history.scores["half"] == [module.ScorePoint(5, 1, None)]
    assert set(history.scores) == {"all right", "FD", "half"}


@pytest.mark.parametrize(
    "line",
    [{}, {"step": "x"}, {"step": True}, {"step": 10**400}, {"step": 1, "losses": [1], "stage": 3}],
)
def test_strange_lines_do_no_harm(line):
    history = History()
    history.add(line)
    assert not history.losses
    assert not history.scores


def test_a_long_curve_stays_short_and_keeps_its_mean(monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 8)
    curve = Curve()
    for step in range(100):
        curve.add(step, float(step % 2))
    assert len(curve.points) < 8
    assert curve.stride == 16
    assert all(value == 0.5 for _, value in curve.points)
    assert curve.shown()[-1][0] == 99


def test_names_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_CURVES", 3)
    history = History()
    for step in range(10):
        history.add(entry(step, losses={f"loss{step}": 1.0}, scores={f"score{step}": 1}))
    assert len(history.losses) == len(history.scores) == 3


def test_time_left_follows_the_present_speed():
    history = History()
    assert history.seconds_left(100, None) is None
    history.add(entry(10))
    assert history.seconds_left(100, None) == pytest.approx(180)
    for step in range(11, 41):
        history.add({**entry(step), "seconds": 20.0 + 4 * (step - 10)})  # slower than before
    assert history.seconds_left(100, None) == pytest.approx(240)
    assert history.seconds_left(None, 5) == pytest.approx(300 - 140)
    assert history.seconds_left(None, 1) == 0
    assert history.seconds_left(None, None) is None


def test_smoothing_has_no_bias_towards_zero():
    points = [(float(n), 3.0) for n in range(5)]
    assert smoothed(points, 0.9) == [(n, pytest.approx(3.0)) for n, _ in points]
    assert smoothed([(0, 1.0), (1, 5.0)], 0) == [(0, 1.0), (1, 5.0)]
