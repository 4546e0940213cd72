"""When grids are due by the clock, and that they do not change what is trained."""

import json
from itertools import pairwise

from t2i.core.engine import grid_clock, train
from t2i.core.engine.grid_clock import FIRST, PARTS, SHARE, GridClock
from t2i.core.engine.reporting import Silent
from t2i.core.runs.configure import resolve_config


def drawn(every, cost, length, step=0.5):
    """Return when grids are written in a stage of some length, by a clock that the test moves."""
    now, found = 0.0, []
    clock = GridClock(every, lambda: now)
    clock.begin()
    while now < length:
        now += step
        if clock.due():
            found.append(now)
            with clock.drawing():
                now += cost
    return found


def test_the_first_comes_soon_and_the_others_regularly():
    times = drawn(40, 0.5, 210)
    assert times[0] <= FIRST + 0.5
    gaps = [after - before for before, after in pairwise(times)]
    assert len(times) == 5
    assert all(40 <= gap <= 45 for gap in gaps)


def test_grids_take_a_small_share_of_the_time():
    cost, length = 6.0, 3600
    times = drawn(40, cost, length)
    assert times[0] <= FIRST + 0.5
    assert len(times) * cost / length < 1.3 * SHARE


def test_a_run_of_days_makes_few():
    assert 60 < len(drawn(40, 1, 86400, step=5)) < PARTS * 8


def test_none_means_never_and_less_than_the_first_means_at_once():
    assert drawn(None, 1, 1000) == []
    assert drawn(2, 0.01, 10)[0] == 2


def test_a_grid_for_another_reason_counts():
    now = 0.0
    clock = GridClock(40, lambda: now)
    now = 9.0
    with clock.drawing():
        pass
    now = 48.0
    assert not clock.due()
    now = 49.0
    assert clock.due()


def test_grids_by_the_clock_do_not_change_what_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(GridClock.__init__.__kwdefaults__, "share", 1e9)
    monkeypatch.setattr(grid_clock, "PARTS", 1e9)

    def losses(seconds, name):
        sets = {"steps": 6, "log_every": 1, "sample_seconds": seconds, "batch_size": 4}
        run = train(resolve_config("dfgan", overrides=sets), tmp_path / name, reporter=Silent())
        lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
        return run, [line["losses"] for line in lines]

    often, with_grids = losses(1e-6, "often")
    never, without = losses(None, "never")
    assert with_grids == without
    names = sorted(path.name for path in often.samples.glob("*.png"))
    assert names == [f"step-{step}.png" for step in range(1, 7)]
    ends = {"step-1.png", "step-6.png"}  # of the two stages
    assert {path.name for path in never.samples.glob("*.png")} == ends
