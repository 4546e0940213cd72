"""Charts are sound SVG, with round ticks, and no text of a run is markup in them."""

from xml.etree import ElementTree

import pytest

from t2i.web.watch.chart import Line, chart, linear_ticks, log_ticks, short

LINE = Line([(1.0, 0.5), (2.0, 0.25), (3.0, -1.0)])


@pytest.mark.parametrize("log", [False, True])
def test_a_chart_is_sound(log):
    drawn = ElementTree.fromstring(chart("loss", [LINE], log=log, note="0.25"))
    svg = drawn.find("svg")
    points = svg.find("polyline").get("points").split()
    assert len(points) == (2 if log else 3)
    width, height = map(float, svg.get("viewBox").split()[2:])
    for point in points:
        x, y = map(float, point.split(","))
        assert 0 <= x <= width
        assert 0 <= y <= height
    assert ("1 values are not positive" in "".join(drawn.itertext())) == log


def test_higher_values_are_higher():
    svg = ElementTree.fromstring(chart("loss", [Line([(0, 1.0), (1, 3.0)])])).find("svg")
    (_, low), (x, high) = (map(float, p.split(",")) for p in
                           svg.find("polyline").get("points").split())  # fmt: skip
    assert high < low
    assert x > 300


@pytest.mark.parametrize("points", [[], [(5.0, 2.0)], [(5.0, 0.0)], [(1, -1.0), (2, -2.0)],
                                    [(1, 1e-300), (2, 1e300)]])  # fmt: skip
@pytest.mark.parametrize("log", [False, True])
def test_few_and_extreme_values(points, log):
    drawn = chart("loss", [Line(points, bands=[(5.0, 1.0, 3.0)] if points else ())], log=log)
    ElementTree.fromstring(drawn)
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_names_are_no_markup():
    evil = "<script>alert(1)</script>\" onload='x'"
    drawn = chart(evil, [LINE], note=evil)
    assert "<script" not in drawn
    assert ElementTree.fromstring(drawn).find("figcaption/b").text == evil


def test_ticks_are_round_and_cover():
    assert linear_ticks(0.13, 0.97) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert linear_ticks(3, 3) == [3]
    assert log_ticks(0.02, 0.7) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert log_ticks(1e-6, 1.0)[0] == pytest.approx(1e-6)
    assert len(log_ticks(1e-300, 1e300)) < 9


def test_numbers_are_short():
    assert [short(v) for v in (0, 0.05, 5000, 12000, 3e6, 2e-7)] == [
        "0", "0.05", "5000", "12k", "3M", "2e-07"
    ]  # fmt: skip
