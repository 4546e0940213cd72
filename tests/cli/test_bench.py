"""`t2i bench`: what it hands to the harness, and what it prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from t2i.benchmarks import runner
from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.report import diff, table
from t2i.benchmarks.results import Column, Row
from t2i.benchmarks.results import Results as RealResults
from t2i.benchmarks.speed import speed


class Results:
    """What a benchmark returns, as far as the command looks."""

    report = Path("out/report.html")

    def document(self):
        return {"rows": []}


@pytest.fixture
def asked(monkeypatch):
    """The requests that the harness was given."""
    calls = []

    def run_request(request):
        calls.append(request)
        print("a library talks")
        return Results()

    monkeypatch.setattr(runner, "run_request", run_request)
    return calls


def test_the_harness_gets_what_was_asked(here, asked):
    code, out, err = here(
        "bench", "shapes", "--models", "a, b", "--run", "c=runs/x", "--minutes", "2.5", "--samples",
        "8",
        "--seeds", "2", "--jobs", "3", "--out", "o", "--train-data", "d", "--train-dir", "t",
        "--data-dir", "v", "--protocol", "p",
        "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == {"rows": []}
    assert "a library talks" in err
    (request,) = asked
    assert request.command.split()[0] == "t2i"
    assert replace(request, command="") == BenchmarkRequest(
        "shapes", protocol="p", models=["a", "b"], runs={"c": "runs/x"}, minutes=2.5,
        samples=8, seeds=2, jobs=3,
        out=Path("o"), train_data="d", train_dir=Path("t"), data_dir=Path("v"),
    )  # fmt: skip


def test_a_bare_benchmark_asks_for_its_defaults(here, asked):
    assert here("bench", "shapes", "--json")[0] == here("bench", "run", "shapes", "--json")[0] == 0
    assert asked[0] == asked[1]
    assert replace(asked[0], command="") == BenchmarkRequest("shapes", jobs=None)


@pytest.mark.usefixtures("asked")
def test_a_person_gets_the_table_and_the_reports_path(here, monkeypatch):
    monkeypatch.setattr(
        table, "show", lambda results, console: console.print("[table]", markup=False)
    )
    assert here("bench", "shapes")[:2] == (0, "[table]\nreport: out/report.html\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["shape"], "no benchmark is named 'shape'; did you mean 'shapes'?"),
        (["shapes", "--protocol", "x"], "benchmark 'shapes' has no protocol 'x'"),
        (["shapes", "--models", "toyy"], "no model is named 'toyy'; did you mean 'toy'?"),
        (["shapes", "--models", " , "], "--models: name at least one model"),
        (
            ["shapes", "--minutes", "1", "--steps", "1"],
            "--steps and --minutes are two ways to say the budget",
        ),
        (
            ["shapes", "--run", "toy=nowhere"],
            "--run toy=nowhere: run nowhere: no such file or directory",
        ),
        (["shapes", "--run", "a=x", "--run", "a=y"], "'a' is there already"),
        (["diff", "nowhere", "nowhere"], "results nowhere"),
        (["speed", "--models", "toyy"], "no model is named 'toyy'"),
    ],
)
def test_mistakes_get_one_line(refused, arguments, line):
    assert line in refused("bench", *arguments)


class Answer:
    def document(self):
        return {"it": 1}

    def show(self, console):
        console.print("[shown]", markup=False)


def test_diff_and_speed_print_what_the_harness_says(here, monkeypatch):
    asked = []
    monkeypatch.setattr(diff, "compare", lambda a, b: asked.append((a, b)) or Answer())
    monkeypatch.setattr(
        speed, "measure_speed", lambda models, **rest: asked.append((models, rest)) or Answer()
    )
    assert here("bench", "diff", "a", "b")[:2] == (0, "[shown]\n")
    assert json.loads(here("bench", "diff", "a", "b", "--json")[1]) == {"it": 1}
    assert here("bench", "speed", "--models", "x,y")[:2] == (0, "[shown]\n")
    assert asked[0] == (Path("a"), Path("b"))
    assert asked[2] == (["x", "y"], {"preset": "tiny", "blocks": 8, "out": None})


def test_results_that_are_there_are_shown_and_their_tables_written(here, tmp_path):
    headline = Column("val", "level", "all", "all %", "higher")
    scores = {"val": {"level": {"all": 50.0}}}
    protocol = {
        "protocol": "p", "image_size": 8, "pictures": "", "real_images": "", "prompts": [],
        "measures": {"level": {"metric": "level"}}, "reference": {"count": 4},
    }  # fmt: skip
    RealResults(
        benchmark="b", protocol=protocol, protocol_hash="f" * 64, budget={"steps": 1},
        columns=[headline], headline=headline, bars=[], environment={}, grid=[],
        rows=[Row("m", "model", "m", scores=scores)], out=tmp_path,
    ).save()  # fmt: skip
    code, out, err = here("bench", "show", str(tmp_path), "--tables", "t", "--json")
    assert code == 0
    assert json.loads(out)["ranking"][0]["name"] == "m"
    assert "table: t/ranking.csv" in err
    assert Path("t/ranking.csv").read_text().endswith("rank,name,all %\n1,m,50\n")
    assert r"\toprule" in Path("t/ranking.tex").read_text()
    assert not (tmp_path / "report.html").exists()
    code, out, err = here("bench", "show", str(tmp_path), "--report")
    assert code == 0
    assert "m" in out
    assert (tmp_path / "report.html").exists()
