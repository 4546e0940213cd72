"""The page of remedies for mode collapse has the numbers that `.ci/collapse.py` measured."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import pytest
import torch

from t2i.benchmarks.report.markdown import filled
from t2i.plugins.common.gan.remedies.config import RemediesConfig

ROOT = Path(__file__).parents[2]


@cache
def script():
    spec = importlib.util.spec_from_file_location("t2i_collapse", ROOT / ".ci" / "collapse.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_tables_are_those_of_the_measurements():
    page, known = script().PAGE.read_text("utf-8"), json.loads(script().DATA.read_text("utf-8"))
    for name, table in (("ring", script().ring_table), ("shapes", script().shapes_table)):
        again = filled(page, name, table(known[name]), "collapse.md")
        assert again == page, "run 'python .ci/collapse.py --write'"


def test_rows_are_those_of_the_script_and_the_picture_is_there():
    known = json.loads(script().DATA.read_text("utf-8"))
    assert set(known["ring"]["rows"]) <= set(script().REMEDIES)
    assert len({len(measures) for measures in known["ring"]["rows"].values()}) == 1
    assert script().PICTURE.stat().st_size < 300_000


def test_the_page_names_every_setting():
    page = script().PAGE.read_text("utf-8")
    own = set(RemediesConfig.model_fields) - set(RemediesConfig.__base__.model_fields)
    assert {name for name in own if f"`{name}" not in page} == set()


def test_samples_of_the_ring_find_all_modes_and_one_mode_finds_one():
    c = script()
    truth = c.centres()[torch.arange(2500) % 25]
    near = truth + c.SIGMA * torch.randn(2500, 2, generator=torch.Generator().manual_seed(0))
    found = c.measured(near)
    assert found["modes"] == 25
    assert found["quality"] == pytest.approx(100 * (1 - 0.0111), abs=1)  # within 3 sigma in a plane
    assert c.measured(truth[:1].expand(2500, 2)) == {"modes": 1, "quality": 100}
    assert c.measured(torch.zeros(2500, 2)) == {"modes": 0, "quality": 0}


def test_the_gans_of_points_train_with_every_row():
    for settings in script().REMEDIES.values():
        assert script().trained(settings, 0, steps=2).isfinite().all()
