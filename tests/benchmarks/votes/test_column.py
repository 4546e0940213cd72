"""Votes as a column of a benchmark's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t2i.benchmarks.report.page import write_report
from t2i.benchmarks.report.table import DASH, show
from t2i.benchmarks.results import Column, Results, Row
from t2i.benchmarks.votes.column import add_votes, check_names
from t2i.benchmarks.votes.judging import judge
from t2i.benchmarks.votes.record import append_vote
from t2i.core.errors import UserError


@pytest.fixture
def judgements(tmp_path, pair_votes):
    file = tmp_path / "votes.jsonl"
    for vote in pair_votes({"a": 1.0, "b": -1.0, "elsewhere": 0.0}, 6, 10):
        append_vote(file, vote)
    return judge([file])


@pytest.fixture
def results(tmp_path: Path) -> Results:
    column = Column("seen", "fid", "fid", "FID", "lower")
    rows = [Row("real images", "real"), *(Row(name, "model", model=name) for name in "abc")]
    for value, row in enumerate(rows):
        row.scores = {"seen": {"fid": {"fid": float(value)}}}
    protocol = {
        "benchmark": "toy", "protocol": "p", "measures": {"fid": {"metric": "fid"}}, "prompts": [],
        "image_size": 8, "pictures": "", "reference": {}, "real_images": "none",
    }  # fmt: skip
    return Results(
        "toy", protocol, "0" * 64, {"steps": 1}, [column], column, [], rows, [], {}, out=tmp_path
    )


def test_rows_with_votes_get_a_value_and_others_a_dash(results, judgements, capsys) -> None:
    add_votes(results, judgements)
    column = results.columns[-1]
    assert column.title == "wins % by votes, overall"
    values = {row.name: row.get(column) for row in results.rows}
    assert values["a"] > values["b"]
    assert values["c"] is values["real images"] is None
    low, high = results.rows[1].interval(column)
    assert low < values["a"] < high
    show(results)
    lines = capsys.readouterr().out.splitlines()
    ends = {
        name: line.rstrip()[-1] for name in ("a", "c") for line in lines if f" {name} " in line[:16]
    }
    assert ends == {"a": ")", "c": DASH}


def test_the_protocol_says_what_the_votes_are_and_its_hash_stays(results, judgements) -> None:
    before = results.protocol_hash
    add_votes(results, judgements)
    told = results.protocol["measures"]["votes"]
    assert (told["question"], told["raters"], told["votes"]) == ("overall", 6, 60)
    assert told["prior"] == "1 tie a model"
    assert next(iter(judgements.files.values())) in told["files"]
    assert results.protocol_hash == before


def test_results_with_votes_are_saved_read_and_reported(results, judgements, tmp_path) -> None:
    add_votes(results, judgements)
    assert Results.load(results.save()).columns == results.columns
    write_report(results)
    page = (tmp_path / "report.html").read_text()
    assert "wins % by votes, overall" in page
    assert "Share of blind votes" in page
    assert "raters 6" in page
    json.loads((tmp_path / "results.json").read_text())


def test_other_votes_replace_the_column(results, judgements, tmp_path, pair_votes) -> None:
    add_votes(results, judgements)
    first = results.rows[1].get(results.columns[-1])
    for vote in pair_votes({"a": -1.0, "b": 1.0}, 6, 10):
        append_vote(tmp_path / "new.jsonl", vote)
    add_votes(results, judge([tmp_path / "new.jsonl"]))
    assert [column.set for column in results.columns] == ["seen", "votes"]
    assert results.rows[1].get(results.columns[-1]) < first


def test_votes_on_other_models_are_named(judgements) -> None:
    assert check_names(judgements, ["a", "c"]) == ["b", "elsewhere"]
    with pytest.raises(UserError, match="--run NAME=RUN"):
        check_names(judgements, ["c", "d"])
