"""What is shown: the report, the table, the ranking, the difference of two results."""

import io
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from t2i.benchmarks.report import labels, plots
from t2i.benchmarks.report.canvas import figure_of
from t2i.benchmarks.report.diff import compare
from t2i.benchmarks.report.page import render, write_report
from t2i.benchmarks.report.table import DASH, number, parts_note, show, spent_note
from t2i.benchmarks.results import Column, Results, Row
from t2i.benchmarks.run import grids
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable

HEADLINE = Column("val", "accuracy", "all", "all right %", "higher")
FID = Column("val", "fid", "fid", "FID", "lower")
NASTY = "<script>alert(1)</script> & $x_1$ [bold] \x1b[2J"


def test_the_ranking_goes_by_the_mean_over_seeds(results):
    ranked = [(s.rank, s.name, s.value(HEADLINE).mean) for s in results.ranking()]
    assert ranked == [(None, "real", 100), (1, "ldm", 85), (2, "gan", 40), (None, "wrong", 1)]
    results.headline = FID
    assert [s.name for s in results.ranking()] == ["real", "ldm", "gan", "wrong"]
    results.rows[2].scores = {}
    assert [(s.rank, s.name) for s in results.ranking()][1:3] == [(1, "ldm"), (None, "gan")]


class Checker(HTMLParser):
    """Every tag is closed in its turn; what is fetched is noted."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.text, self.alts = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        self.alts += [value for key, value in attributes if key == "alt"]
        assert not any(key.startswith("on") for key, _ in attributes)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open[-1:] == [tag]:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_sound_file_that_fetches_nothing(results):
    page = Checker()
    page.feed(write_report(results).read_text())
    assert page.open == []
    assert page.tags.count("script") == 1  # the page's own, which the policy names
    links = [link for link in page.links if not link.startswith("#")]  # of an SVG to itself
    assert links
    assert all(link.startswith("data:") for link in links)
    assert page.tags.count("img") == 3 * 2
    assert set(page.alts) == {
        f"{name}, image {place}: {printable(NASTY)}"
        for name in ("real", "gan", "ldm")
        for place in (1, 2)
    }
    assert page.tags.count("svg") == 1 + 3  # bars, and curves of each training; no scatter plots
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\([^#]", "".join(page.text))
    text = " ".join(page.text)
    for wanted in (
        "ldm",
        "85.0",
        "real",
        "mode collapse <script>",
        r"\x1b[2J",
        "3.5 minutes",
        "f" * 64,
        "lowest and highest",
        "Paper",
        "12.5",
        "somebody 2020",
        "claim <script>",
        "Left out: clip (<script>",
        "30 real images (all <script>",
    ):
        assert wanted in text, wanted


def test_what_is_missing_leaves_no_hole(results, tmp_path):
    """Rows without cost, log or images: a run that was imported."""
    bare = [replace(r, training={}, sampling={}, curve=[]) for r in results.rows]
    page = render(replace(results, rows=bare, grid=[], bars=[], out=tmp_path / "nowhere"))
    assert "<h2>Training" not in page
    assert "<h2>Same captions" not in page
    assert "<h2>Right by attribute" not in page


def test_the_columns_are_explained(results):
    assert "<dt>FD, cnn</dt><dd>Frechet distance between the features of real" in render(results)
    results.protocol["measures"]["fid"]["metric"] = "of a plugin that is gone"
    assert "Frechet" not in render(results)


def test_a_budget_is_named_only_where_something_was_trained(results):
    assert "<p>Training budget 3.5 minutes a model, on cpu" in render(results)
    results.budget["jobs"] = 2
    shared = "(trained 2 at once, each on its share of the cores, for 2 times as long), on cpu"
    assert f"<p>Training budget 3.5 minutes a model {shared}" in render(results)
    for entry in results.rows:
        entry.training = {**entry.training, "given": True}
    assert "<p>All models were given as runs, on cpu" in render(results)


def test_the_report_says_how_the_time_was_spent_and_what_was_pretrained(results):
    assert not spent_note(results) + parts_note(results)
    results.spent = {"all": 200.0, "training": 150.0, "sampling": 20.0, "scoring": 10.0, "rest": 20}
    results.rows[1].training["config"] = {
        "encoder": {"name": "words", "weights": "toys-clip"},
        "settings": {"vae": {"weights": "toys-vae"}, "unet": {"weights": None}},
    }
    results.rows[2].training["config"] = {"encoder": {"name": "words"}}
    spent = (
        "The last command took 3:20: training 2:30 (75%), sampling 0:20 (10%), scoring 0:10 (5%), "
        "the rest 0:20 (10%)."
    )
    assert spent_note(results) == spent
    results.rows.pop(3)  # a second seed
    parts = "Pretrained parts: ldm: encoder toys-clip, vae toys-vae; gan: none."
    assert parts_note(results) == parts
    console = Console(width=200, record=True, file=io.StringIO())
    show(results, console)
    shown = console.export_text()
    assert spent in shown
    assert parts in shown
    assert f"{spent} {parts}" in render(results)


def test_brackets_are_explained_only_where_there_are_some(results):
    assert "In brackets: lowest and highest over seeds. " in render(results)
    for entry in results.rows:
        entry.intervals = {}
    single = replace(results, rows=results.rows[:3])
    console = Console(record=True, file=io.StringIO(), width=80)
    show(single, console)
    assert "In brackets" not in console.export_text() + render(single)


def test_a_notebook_shows_the_ranking(results):
    page = results._repr_html_()
    assert [cell for cell in re.findall(r"<tr><td>(\d*)</td>", page) if cell] == ["1", "2"]
    for standing in results.ranking():
        assert f"<td>{escape(standing.name)}</td>" in page
    assert NASTY not in page


def test_plots_are_the_same_each_time(results):
    assert plots.bars(results.ranking(), [HEADLINE]) == plots.bars(results.ranking(), [HEADLINE])


def test_the_table_fits_a_narrow_terminal(results):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(results, console)
    text = console.export_text()
    assert re.search(rf"^1 +ldm +85.0 \(80.0{DASH}90.0\)", text, re.M)
    assert re.search(rf"^2 +gan +40.0 \(35.0{DASH}44.0\) +30.0$", text, re.M)
    assert "In the report: costs, images and training curves." in text
    assert "! gan: mode collapse <script>alert(1)</script> & $x_1$ [bold] \\x1b[2J" in " ".join(
        text.split()
    )
    assert "left out: clip (<script>" in text
    assert "not ranked with ours: Paper FID 12.5" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_interval_is_cut_however_many_scores_and_models_there_are(results, row, width):
    more = [Column("val", f"m{n}", "score", f"score {n}", "higher") for n in range(9)]
    results.columns = [FID, *more, HEADLINE]
    for n in range(7):
        results.rows.append(row(f"a-model-with-a-name-{n}", 50 + n, 8.0))
    for entry in results.rows:
        for column in more:
            entry.scores["val"][column.measure] = {"score": 0.1234}
            entry.intervals["val"][column.measure] = {"score": (0.1111, 0.2222)}
    console = Console(width=width, record=True, file=io.StringIO())
    show(results, console)
    text = console.export_text()
    told = text.partition("! gan")[0].partition("In the report")[0]
    assert max(map(len, text.splitlines())) <= width
    for n in range(7):
        assert f"{50 + n}.0 ({45 + n}.0{DASH}{54 + n}.0)" in told
    assert told.count("(") == told.count(")")
    assert "score 8" in text  # among what the report has
    assert "…" not in text


def test_models_whose_intervals_overlap_share_a_rank(results, row):
    results.rows += [row("near", 44, 8.0), row("far", 20, 8.0)]
    ranked = [(s.place, s.name) for s in results.ranking() if s.rank]
    assert ranked == [("1", "ldm"), ("2=", "near"), ("2=", "gan"), ("4", "far")]
    places = results.document()["ranking"]
    assert [(p["rank"], p["tied"]) for p in places] == [
        (1, False), (2, True), (2, True), (4, False)
    ]  # fmt: skip
    assert '<td class="rank">2=</td>' in render(results)
    console = Console(width=80, record=True, file=io.StringIO())
    show(results, console)
    assert "share a rank: their intervals overlap" in " ".join(console.export_text().split())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (92.345, "92.3"), (6.094, "6.09"), (0.01234, "0.0123"), (1234.5, "1,234"), (-2, "-2.00"), (-2.84e-14, "-2.84e-14")],  # noqa: E501
)  # fmt: skip
def test_numbers_have_three_figures(value, text):
    assert number(value) == text


def test_a_comparison_sheet_shows_every_row(results):
    path = grids.save_comparison(results.out, [("real", "real images"), ("gan", "gan")], [NASTY])
    assert path.stat().st_size > 0


def test_the_difference_names_fields_and_scores(results, row, tmp_path):
    results.save()
    other = tmp_path / "other"
    other.mkdir()
    protocol = {**results.protocol, "prompts": [{**results.protocol["prompts"][0], "count": 6}]}
    rows = [results.rows[0], row("ldm", 70, 3.0)]
    replace(results, rows=rows, out=other, protocol=protocol, protocol_hash="e" * 64).save()
    found = compare(tmp_path / "results.json", other)
    assert not found.comparable
    assert [(f.name, f.a, f.b) for f in found.fields] == [("protocol.prompts.val.count", 12, 6)]
    scores = {(s.row, s.score): (s.a, s.b) for s in found.scores}
    assert scores["ldm", "all right %"] == (85, 70)
    assert scores["gan", "FID"] == (30, None)
    shown = text(found)
    assert "captions of 'val' differ: 12 and 6" in shown
    assert f"first:{tmp_path / 'results.json'}" in "".join(shown.split())
    assert "85.0" not in shown  # scores across protocols do not stand side by side
    forced = text(found, force=True)
    assert "85.0" in forced
    assert re.search(r"score +results\.json +other", forced)
    assert "change" not in forced  # and nothing is ranked across protocols
    same = compare(tmp_path, tmp_path)
    assert same.comparable
    assert same.fields == ()
    assert re.search(r"score +first +second +change", text(same))
    assert f"40.0 (35.0{DASH}44.0)" in text(same)


def test_the_difference_prints_no_hashes_and_no_nested_values(results, tmp_path):
    results.save()
    own = results.protocol["prompts"][0]
    protocol = {
        **results.protocol,
        "prompts": [{**own, "fingerprint": "ab" * 32}, {"name": "two", "count": 3, "about": "x"}],
        "weights": {"shapes-clip": "12" * 32},
    }
    replace(results, out=tmp_path / "other", protocol=protocol, protocol_hash="e" * 64).save()
    shown = text(compare(tmp_path, tmp_path / "other"))
    assert "captions of 'two': only in the second" in shown
    assert "images of the captions of 'val': only in the second" in shown
    assert "weights: only in the second" in shown
    assert "{" not in shown
    assert not re.search(r"[0-9a-f]{12}", shown.replace(str(tmp_path), ""))


def text(difference, **more):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    difference.show(console, **more)
    return console.export_text()


def test_the_difference_names_how_rows_were_made_and_what_was_left_out(results, tmp_path):
    results.save()
    rows = [
        replace(r, sampling={**r.sampling, "steps": 9, "seconds_per_image": 7.0})
        for r in results.rows[1:3]
    ]
    rows[0] = replace(
        rows[0],
        training={**rows[0].training, "seconds": 1.0, "config": {"data": {"name": "laion"}}},
    )
    other = tmp_path / "other"
    replace(results, rows=rows, out=other, left_out={}, published=[]).save()
    found = compare(tmp_path, other)
    assert found.comparable
    assert [(f.name, f.a, f.b) for f in found.fields] == [
        ("left_out.clip", NASTY, None),
        ("rows.ldm.training", None, {"data": {"name": "laion"}}),
        ("rows.ldm.sampling.steps", None, 9),
        ("rows.gan.sampling.steps", None, 9),
    ]


def test_what_others_printed_is_kept_apart(results):
    results.save()
    loaded = Results.load(results.out)
    assert loaded.published == results.published
    assert "Paper" not in [standing.name for standing in loaded.ranking()]
    page = render(loaded)
    assert (
        page.index("Published elsewhere")
        < page.index("Paper")
        < page.index("nothing here is ranked with ours")
    )


def test_labels_cover_neither_each_other_nor_points():
    with figure_of(2.9) as (axes, _):
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        points = [(1, 5), (1.1, 5), (1.2, 5.1), (1.2, 5.2), (9.9, 5), (9.8, 5)]
        labels.put(
            axes, [labels.Label(x, y, f"a model {n}", "black") for n, (x, y) in enumerate(points)]
        )
        renderer = FigureCanvasAgg(axes.figure).get_renderer()
        boxes = [written.get_window_extent(renderer) for written in axes.texts]
        dots = axes.transData.transform(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    assert all(box.x1 <= axes.figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"format": 1, "rows": 3}', "no json"])
def test_a_file_that_holds_no_results_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json"):
        Results.load(Path(tmp_path))


CHANGES = {
    "scores a list": {"scores": [1]},
    "name a list": {"name": [1]},
    "training a list": {"training": [1]},
    "sampling null": {"sampling": None},
    "a text for a bound": {"intervals": {"a": {"b": {"c": [1, "x"]}}}},
    "a kind of its own": {"kind": "evil"},
    "a key of its own": {"evil": 1},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_results_of_wrong_types_are_one_line(results, change):
    results.save()
    file = results.out / "results.json"
    document = json.loads(file.read_text())
    document["rows"][1] |= change
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"'rows\.1\..*; run the benchmark again"):
        Results.load(results.out)


def test_losses_at_the_edge_of_float32_are_drawn(results):
    row = next(row for row in results.rows if row.kind == "model")
    row.curve = [
        {"stage": "s", "seconds": 1e10 * (i % 2), "losses": {"a": 1e38 * (-1) ** i, "b": None}}
        for i in range(9)
    ]
    assert plots.training_curve(row).startswith(b"<?xml")


def test_plots_of_very_many_curves_or_points_stay_small():
    many = {f"loss {i}": float(i + 1) for i in range(15_000)}
    row = Row("m", "model", curve=[{"seconds": s, "stage": "a", "losses": many} for s in (1, 2)])
    svg = plots.training_curve(row)
    assert len(svg) < 300_000
    assert b"the first 24 of 15000 curves" in svg
    long = [{"seconds": s, "stage": "a", "losses": {"x": s % 7 + 1.0}} for s in range(100_000)]
    assert len(plots.training_curve(Row("m", "model", curve=long))) < 300_000


def test_scores_while_training_are_drawn_for_all_models_together(results):
    score = {"value": 5.0, "interval": [4.0, 6.0], "title": "FD, pixels of 64"}
    models = [row for row in results.rows if row.kind == "model"]
    for row in models:
        row.curve = [
            {"stage": "s", "seconds": 60.0 * n, "losses": {}, "scores": {"fid:pixels": score}}
            for n in range(3)
        ]
    found = plots.scores(models)["FD, pixels of 64"]
    assert list(found) == [row.name for row in models]
    assert found[models[0].name][2] == (2.0, 5.0, 4.0, 6.0)
    page = render(results)
    assert "<figcaption>FD, pixels of 64</figcaption>" in page
