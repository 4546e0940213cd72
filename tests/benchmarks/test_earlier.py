"""A second command into the folder of a comparison adds to it, and never replaces it."""

import json

import pytest

from t2i.benchmarks.results import Results
from t2i.benchmarks.runner import run_benchmark
from t2i.core.errors import UserError

pytestmark = pytest.mark.usefixtures("squares", "unwritten")


@pytest.fixture
def bench(tmp_path, engine, words):
    def run(**arguments):
        return run_benchmark("squares", out=tmp_path / "out", reporter=words, **arguments)

    return run


@pytest.fixture
def given(tmp_path, bench):
    """A comparison of `toy`, and a run that is not in it."""
    bench()
    run_benchmark("squares", out=tmp_path / "elsewhere")
    return tmp_path / "elsewhere" / "runs" / "toy"


def names(results):
    return [row.name for row in results.rows]


def test_rows_are_added_in_both_orders(tmp_path, bench, given, engine):
    first = Results.load(tmp_path / "out")
    both = bench(runs={"other": given})
    expected = ["real images", "toy", "other", "real images, wrong captions"]
    assert names(both) == expected
    assert both.rows[1] == first.rows[1]
    assert both.budget == first.budget
    assert both.rows[2].warnings == first.rows[1].warnings == []  # a given run has its own budget
    assert Results.load(tmp_path / "out").document() == both.document()
    assert sorted(names(bench())) == sorted(expected)
    assert len(engine.trained) == 2  # `toy` here and elsewhere, nothing again
    assert (tmp_path / "out" / "grids" / "comparison.png").exists()


def test_a_row_of_another_budget_is_marked(tmp_path, bench, given):
    for path in [*(tmp_path / "out" / "runs").iterdir()]:
        path.rename(tmp_path / path.name)
    file = tmp_path / "out" / "results.json"
    file.write_text(file.read_text().replace('"toy"', '"before"'))
    results = bench(minutes=2)
    assert names(results)[1:3] == ["before", "toy"]
    assert results.budget == {"minutes": 1.0}
    assert results.rows[2].warnings == [
        "trained for 2 minutes, the comparison's others for 1 minute"
    ]


def test_a_row_of_seeds_keeps_its_place(bench, given):
    bench(runs={"other": given})
    results = bench(seeds=2)
    assert names(results)[1:-1] == ["other", "toy", "toy-seed1"]
    assert {standing.name for standing in results.ranking() if standing.rank} == {"toy", "other"}


def test_another_protocol_is_refused_before_anything_is_trained(tmp_path, bench, engine):
    bench()
    files = [tmp_path / "out" / name for name in ("results.json", "grids/real.png")]
    before = [file.read_bytes() for file in files]
    with pytest.raises(UserError, match=r"captions of '.*' differ: .* and 3.*name another --out"):
        bench(samples=3, models=["toy"], seeds=2)
    assert len(engine.trained) == 1
    assert [file.read_bytes() for file in files] == before


def test_another_run_under_a_name_that_is_taken_is_refused(tmp_path, bench, given):
    bench(runs={"other": given})
    with pytest.raises(UserError, match=r"has a row 'other' already, of .*elsewhere"):
        bench(runs={"other": tmp_path / "out" / "runs" / "toy"})
    assert "other" in names(bench(runs={"other": given}))


def test_damaged_results_are_not_replaced(tmp_path, bench):
    bench()
    file = tmp_path / "out" / "results.json"
    file.write_text(json.dumps({"format": 1, "rows": []}))
    with pytest.raises(UserError, match=r"name another --out, or move .*results\.json away"):
        bench()
    assert json.loads(file.read_text()) == {"format": 1, "rows": []}
