"""The line of the bar: what stands first, what fits, and that it moves between reports."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from t2i.core.engine.bar import AHEAD, Line, fitting
from t2i.core.engine.status import LOSSES, Status

LOSS = {"discriminator": 1.492, "penalty": 0.001, "generator": -0.2, "match": 3.25}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def status(**more):
    given = {"stage": "gan", "step": 100, "progress": 0.42, "rate": 44.0, "left": 106.0}
    return Status(**{**given, "losses": LOSS, **more})


def shown(line, width):
    return line.text(width).plain


@pytest.mark.parametrize("width", [19, 24, 30, 40, 59, 60, 79, 100, 119, 200])
def test_share_and_time_left_are_whole_at_every_width(clock, width):
    line = Line(clock)
    line.set(0.42, 3723.0, status(stage="a stage with a very long name \u65e5\u672c").words(LOSSES))
    text = shown(line, width)
    assert " 42%  1:02:03 left" in text
    assert cell_len(text) <= width


def test_at_80_columns_the_stage_and_two_losses_fit(clock):
    line = Line(clock)
    line.set(0.42, 106.0, status().words(LOSSES))
    assert shown(line, 79).partition(" 42%")[2] == (
        "  1:46 left  gan step 100  discriminator 1.492  penalty 0.001"
    )


def test_a_score_stands_before_the_losses(clock):
    line = Line(clock)
    line.set(0.42, 106.0, status(note="all right % of 64: 12").words(LOSSES))
    assert "gan step 100  all right % of 64: 12" in shown(line, 79)


def test_between_reports_it_moves_by_the_clock_but_not_for_ever(clock):
    line = Line(clock)
    line.set(0.5, 100.0, ("x",))
    seen = []
    for _ in range(3):
        clock.now += 1
        seen.append(shown(line, 79))
    assert [text.partition("%  ")[2] for text in seen] == [
        "1:39 left  x", "1:38 left  x", "1:37 left  x"
    ]  # fmt: skip
    clock.now += 50
    assert " 76%" in shown(line, 79)
    clock.now += 1000
    assert " 80%  0:40 left" in shown(line, 79)
    assert AHEAD == 60


def test_before_an_estimate_it_shows_the_time_that_passed(clock):
    line = Line(clock)
    clock.now += 7
    assert "  0%  0:07 so far  starting" in shown(line, 79)
    line.set(0.2, None, ("resumed",))
    assert " 20%  0:07 so far  resumed" in shown(line, 79)


def test_a_terminal_that_is_resized_gets_a_line_of_its_width(clock):
    line = Line(clock)
    line.set(0.42, 106.0, status().words(LOSSES))
    for width in (80, 40, 120, 20):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        console.print(line)
        assert len(console.file.getvalue().rstrip("\n")) <= width - 1
        assert "1:46 left" in console.file.getvalue()


def test_what_does_not_fit_is_left_out_whole_and_only_the_first_is_cut():
    parts = ("abc", "a long one", "de")
    assert fitting(parts, 30, "  ") == "  abc  a long one  de"
    assert fitting(parts, 10, "  ") == "  abc  de"
    assert fitting(parts, 2, "  ") == "  a\u2026"
    assert fitting(parts, 0, "  ") == ""
    assert fitting((), 10, "  ") == ""
