"""Plots: a model's look, plain numbers on the axes, legends that are whole, dark mode."""

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

from t2i.benchmarks.report import plots
from t2i.benchmarks.report.canvas import WIDTH, figure_of, inline, legend
from t2i.benchmarks.report.looks import INK, look_of, look_of_row
from t2i.benchmarks.results import Row, Standing
from t2i.core.registry.tables import registry


def test_a_models_look_depends_on_its_name_alone():
    models = [spec.name for spec in registry().models]
    looks = {name: look_of(name) for name in models}
    for one, other in itertools.combinations(("ldm", "galip", "dfgan"), 2):
        assert looks[one].colour != looks[other].colour
    assert len({(look.colour, look.marker, look.line) for look in looks.values()}) == len(models)
    assert look_of("ldm") == look_of_row("model", "ldm") != look_of_row("real", "ldm")
    assert look_of("ldm").colour == "#d55e00"  # as in all reports before


def test_numbers_of_a_logarithmic_axis_are_plain():
    curve = [{"seconds": 60.0 * i, "stage": "a", "losses": {"x": 10.0**-i}} for i in range(5)]
    svg = plots.training_curve(Row("m", "model", curve=curve)).decode()
    assert "mathdefault" not in svg
    assert {"1", "0.1", "0.01"} <= set(re.findall(r">([\d.]+)</text>", svg))


def test_a_legend_is_never_cut():
    names = ["diffusion", "a loss of a very long name indeed", "b", "another of a longer name"]
    with figure_of(2) as (axes, _):
        for name in names:
            axes.plot([0, 1], label=name)
        legend(axes)
        figure = axes.figure
        figure.draw_without_rendering()
        (box,) = [written.get_window_extent() for written in figure.legends]
    assert box.x0 >= 0
    assert box.x1 <= WIDTH * figure.dpi
    assert axes.bbox.height > 1.2 * figure.dpi  # the figure grew, the axes did not shrink


def test_a_scatter_plot_needs_three_models_and_different_costs(results, row):
    def drawn(rows):
        standings = [Standing(None, r.name, (r,)) for r in rows]
        return plots.quality_against(standings, results.headline, "s/image", "seconds")

    rows = [row(name, 50.0, 2.0) for name in "abc"]
    assert drawn(rows) is None  # the same cost
    for place, entry in enumerate(rows, 1):
        entry.sampling = {"seconds_per_image": 0.1 * place}
    assert drawn(rows[:2]) is None
    assert drawn(rows).startswith(b"<?xml")


def test_a_plot_inside_the_page_takes_its_colours_and_holds_no_markup(results, nasty):
    rows = [replace(r, name=f"{nasty}{r.name}", model="") for r in results.rows]
    svg = inline(plots.bars([Standing(None, r.name, (r,)) for r in rows], results.bars))
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "var(--ink)" in svg
    assert INK not in svg
    assert "<script" not in svg
    assert "<style" not in svg
