"""The page of measured samplers is what `.ci/samplers.py` writes."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("Error of the mean", "Error of the covariance", "Order of convergence")


@cache
def script():
    spec = importlib.util.spec_from_file_location("t2i_samplers", ROOT / ".ci" / "samplers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def written():
    """Table -> (sampler, schedule) -> text of the cell."""
    page, found = script().PAGE.read_text("utf-8"), {}
    for title in TABLES:
        lines = re.findall(r"^\|.*\|$", page.split(f"## {title}")[1].split("## ")[0], re.M)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        for name, *cells in rows[2:]:
            for schedule, cell in zip(rows[0][1:], cells, strict=True):
                found[title, name.strip("`"), schedule] = cell
    return found


def is_current(name, schedule, **settings):
    cell = script().measured(name, schedule, **settings)
    mean, covariance, order = (written()[title, name, schedule] for title in TABLES)
    if cell is None:
        assert (mean, covariance, order) == ("refused",) * 3
        return
    assert max(cell.mean, 1e-4) == pytest.approx(float(mean), rel=0.15, abs=3e-4)
    assert max(cell.covariance, 1e-4) == pytest.approx(float(covariance), rel=0.15, abs=3e-4)
    if cell.order is None:
        assert order == "-"
    else:
        assert cell.order == pytest.approx(float(order), abs=0.16)


def test_every_sampler_and_schedule_is_on_the_page():
    wanted = {(t, n, s) for t in TABLES for n in script().names() for s in script().SCHEDULES}
    assert set(written()) == wanted, "run 'python .ci/samplers.py --write'"


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("ddim", "vp"), ("ode", "cosine"), ("edm-heun", "linear"), ("flow-euler", "mixing"),
        ("dpmpp-2m", "ve"), ("pc", "sub-vp"), ("scheduler", "vp"),
    ],
)  # fmt: skip
def test_cells_of_the_page_are_current(name, schedule):
    predictions = {} if name in ("pc", "scheduler") else {"predictions": ("epsilon", "sample")}
    is_current(name, schedule, **predictions)


@pytest.mark.slow
def test_all_of_the_page_is_current():
    for name in script().names():
        for schedule in script().SCHEDULES:
            is_current(name, schedule)


def test_deterministic_samplers_find_the_data_and_their_order():
    """What the page must show, whoever wrote it."""
    expected = {"ode": 4, "edm-heun": 2, "flow-euler": 1, "ddim": 1, "euler": 1}
    most = {"ode": 0.01, "edm-heun": 0.01, "ddpm": 0.12, "pc": 0.08}
    for (title, name, schedule), cell in written().items():
        if schedule == "scaled_linear":  # it ends early, at both ends
            continue
        if title == TABLES[2] and name in expected:
            assert abs(float(cell) - expected[name]) < 0.75, (name, schedule, cell)
        elif title != TABLES[2] and name in most:
            assert float(cell) < most[name], (title, name, schedule)
