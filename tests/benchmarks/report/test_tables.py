"""Tables of the report: what columns are called and said to be, CSV and LaTeX, votes."""

import csv
import io
import re
from dataclasses import replace

import pytest

from t2i.benchmarks.report.columns import explained, heading, too_few
from t2i.benchmarks.report.export import csv_text, latex, latex_text, write_tables
from t2i.benchmarks.report.page import render
from t2i.benchmarks.report.sheets import Cell, Head, Line, Sheet, ranking_sheet, sheets
from t2i.benchmarks.report.table import DASH
from t2i.benchmarks.results import Column, Value

FID = Column("val", "fid", "fid", "FID", "lower")


@pytest.mark.parametrize(
    ("measure", "title"),
    [
        ({"metric": "fid", "settings": {"features": "inception/pool"}}, "FID"),
        ({"metric": "fid", "settings": {"features": "shapes"}}, "FD, shapes"),
        ({"metric": "level", "settings": {"features": "shapes"}}, "FID"),
        ({}, "FID"),
    ],
)
def test_only_inceptions_distance_is_called_fid(measure, title):
    assert heading(FID, {"measures": {"fid": measure}}) == title
    other = replace(FID, title="FID, all kinds")
    assert heading(other, {"measures": {"fid": measure}}) == f"{title}, all kinds"


def test_a_distance_of_fewer_images_than_features_is_grey(results):
    measure = results.protocol["measures"]["fid"]
    assert not too_few(FID, results.protocol)  # the width is not known
    measure["extractor"]["dim"] = 12
    assert not too_few(FID, results.protocol)
    assert "12 images, 12 features: the distance is too large" in render(results)
    measure["extractor"]["dim"] = 1
    assert "12 images, 1 features." in render(results)
    measure["extractor"]["dim"] = 13
    assert too_few(FID, results.protocol)
    page = render(results)
    assert re.search(r'<td data-label="FD, cnn ↓" data-value="30.0" class="few">', page)
    assert "12 images, 13 features: too few" in page
    line = ranking_sheet(results, results.ranking()).lines[1]
    assert [(cell.best, cell.too_few) for cell in line.cells] == [(True, False), (False, True)]
    assert "% too few images for FD, cnn" in latex_text(
        ranking_sheet(results, results.ranking()), ()
    )


def test_a_column_of_votes_needs_no_metric(results):
    votes = Column("val", "votes", "strength", "votes %", "higher")
    results.columns.append(votes)
    results.protocol["measures"]["votes"] = {
        "about": "How often people prefer its images.", "reading": "50 is the average.", "raters": 9
    }  # fmt: skip
    results.rows[2].scores["val"]["votes"] = {"strength": 61.0}
    results.rows[2].intervals["val"]["votes"] = {"strength": (50.0, 70.0)}
    (own,) = [e for e in explained(results.columns, results.protocol) if "votes %" in e.titles]
    assert (own.what, own.reading) == ("How often people prefer its images", "50 is the average.")
    page = render(results)
    assert '<td data-label="votes % ↑" data-value="61.0"><span>61.0<small>(50.0' in page
    assert "raters 9" in page


def test_csv_has_all_digits_and_ranges(results, nasty, tmp_path):
    written = write_tables(results, tmp_path / "a" / "tables")
    assert {path.name for path in written} == {
        f"{name}.{ending}"
        for name in ("ranking", "published-1", "attributes", "costs")
        for ending in ("csv", "tex")
    }
    text = (tmp_path / "a" / "tables" / "ranking.csv").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(results.protocol_hash in line for line in comments)
    lines = list(csv.DictReader(line for line in text.splitlines() if line[0] != "#"))
    assert lines[1] == {
        "rank": lines[1]["rank"], "name": "ldm", "all right %": "85", "all right % low": "80",
        "all right % high": "90", "FD, cnn": "8", "FD, cnn low": "7", "FD, cnn high": "9",
    }  # fmt: skip
    assert lines[1]["rank"] == str(results.ranking()[1].rank)


def test_a_name_is_no_formula_and_no_command():
    head, cell = (
        Head("a_b %", "lower"),
        Cell(f"-1.50 (-2.00{DASH}-1.00)", Value(-1.5, -2.0, -1.0), True),
    )
    sheet = Sheet("t", "two\nlines", (head,), (Line("=cmd|' /C calc'!A0", (cell,)),))
    rows = [line for line in csv_text(sheet).splitlines() if not line.startswith("#")]
    assert list(csv.reader(io.StringIO(rows[1]))) == [["'=cmd|' /C calc'!A0", "-1.5", "-2", "-1"]]
    text = latex_text(replace(sheet, lines=(Line(r"\input{x} & $ % #", (cell,)),)))
    assert text.splitlines()[0] == "% two lines"
    assert r"\textbackslash{}input\{x\} \& \$ \% \# & \textbf{$-$1.50}" in text
    assert r"{\scriptsize ($-$2.00--$-$1.00)}" in text
    assert r"a\_b \% $\downarrow$" in text


@pytest.mark.parametrize("text", ["a\\b", "{", "100%", "x^2~y", "a\nb", "<i>", "“q”"])
def test_latex_escapes_leave_no_live_character(text):
    left = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", latex(text))
    assert not set(left) & set("\\{}$&#%_^~\n<>")


def test_a_table_of_few_models_is_turned(results):
    sheet = sheets(results)[0]
    wide = replace(
        sheet, heads=sheet.heads * 4,
        lines=tuple(replace(line, cells=line.cells * 4) for line in sheet.lines[1:3]),
    )  # fmt: skip
    turned = latex_text(wide).splitlines()
    assert " & ldm & gan \\\\" in turned
    assert r"\begin{tabular}{lrr}" in turned
    for line in turned:
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2
    assert r"\begin{tabular}{llrr}" in latex_text(sheet)


def test_every_table_of_the_page_has_its_files(results):
    page = render(results)
    for sheet in sheets(results):
        assert f'<a download="{sheet.name}.csv" href="data:text/csv;charset=utf-8,' in page
        assert f'<a download="{sheet.name}.tex" href="data:' in page
