"""The board: rows enter once, in any order; its pages say what its rows say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from t2i.benchmarks.board import figures, tables
from t2i.benchmarks.board.__main__ import main
from t2i.benchmarks.board.entering import enter, models_on, rows_of
from t2i.benchmarks.board.members import wanted_models
from t2i.benchmarks.board.pages import write_pages
from t2i.benchmarks.board.sections import SHAPES, of_pictures
from t2i.benchmarks.report.markdown import filled
from t2i.benchmarks.results import VARIETY, Results, Row
from t2i.benchmarks.run import grids
from t2i.benchmarks.run.chosen_benchmark import find_benchmark
from t2i.benchmarks.run.plan import choose_models, named_models
from t2i.core.errors import UserError
from t2i.core.registry.tables import registry

CAPTIONS = ("a red circle", "two small stars")
SIDE = 32


def make_row(model, right, kind="model", seed=0, minutes=20):
    marks = dict.fromkeys(("shape", "colour", "size", "position", "count"), 90.0)
    one = {"caption-accuracy": {"all": right, **marks}, "fid": {"fid": 2.5}}
    return Row(
        name=model if seed == 0 else f"{model}-seed{seed}", kind=kind,
        model=model if kind == "model" else "", seed=seed,
        scores={
            "one object": one,
            "all kinds": {"caption-accuracy": {"all": right / 2}},
            "compositions": {"caption-accuracy": {"all": right / 2}},
            VARIETY: {"diversity": {"diversity": 9.5}},
        },
        intervals={"one object": {"caption-accuracy": {"all": (right - 3, right + 2)}}},
        training={
            "run": "/nowhere", "steps": 1234, "parameters": {"all": 2.5e6}, "threads": 1,
            "config": {"model": model, "minutes": minutes},
        },
        sampling={"name": "direct", "seconds_per_image": 0.02 if model == "ldm" else 0.001},
        warnings=["mode collapse"] if model == "dfgan" else [],
    )  # fmt: skip


def make_results(out, *rows, protocol="a" * 64, benchmark="shapes"):
    """Write results of real images and some models, with the images of their grid."""
    rows = [make_row("real images", 99.0, "real"), *rows, make_row("wrong", 0.5, "floor")]
    for shade, row in enumerate(rows[:-1]):
        for number in range(len(CAPTIONS)):
            image = np.full((SIDE, SIDE, 3), 40 * shade % 240 + number, np.uint8)
            grids.save_image(out, grids.REAL if shade == 0 else row.name, number, 0, image)
    results = Results(
        benchmark=benchmark, protocol={}, protocol_hash=protocol, budget={"minutes": 20},
        columns=[tables.HEADLINE], headline=tables.HEADLINE, bars=[], rows=rows,
        grid=[{"set": "one object", "caption": caption} for caption in CAPTIONS],
        environment={"torch": "9"}, command=f"t2i bench {benchmark} --out=/home/ann/x",
        created="2026-11-30T10:00:00", out=out,
    )  # fmt: skip
    results.save()
    return out


@pytest.fixture
def clone(tmp_path):
    """A folder with the documents of a clone that show the board."""
    root = tmp_path / "clone"
    pages = {
        "docs/board.md": ("quality", "attributes", "numbers", "origins", "protocol", "missing"),
        "README.md": ("board",),
        "plugins/models/ldm/README.md": ("ldm",),
        "plugins/models/dfgan/README.md": ("dfgan",),
    }
    for name, parts in pages.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"# t\n<!-- {p} -->old<!-- end of {p} -->\nkept\n" for p in parts))
    (root / "benchmarks/board").mkdir(parents=True)
    return root


def test_rows_are_joined_in_any_order(tmp_path):
    one = make_results(tmp_path / "one", make_row("dfgan", 60.0))
    two = make_results(tmp_path / "two", make_row("ldm", 95.0), make_row("ldm", 91.0, seed=1))
    for order in ((one, two), (two, one)):
        board = tmp_path / f"board-{order[0].name}"
        assert [enter(board, found, "shapes", 20) for found in order] == [
            [row.name for row in Results.load(found).rows if row.kind == "model"] for found in order
        ]
        found = rows_of(board)
        names = ["real images", "dfgan", "ldm", "ldm-seed1", "wrong"]
        assert [row.name for row in found.rows] == names
        assert models_on(board) == ["dfgan", "ldm"]
        dfgan = found.rows[1]
        assert dfgan.scores == make_row("dfgan", 60.0).scores
        assert dfgan.training["run"] == "nowhere"  # not where it lay
        assert dfgan.training["made"] == {
            "command": "t2i bench shapes --out=x", "created": "2026-11-30T10:00:00", "torch": "9",
        }  # fmt: skip
        with Image.open(board / "ldm.png") as strip:
            assert strip.size == (len(CAPTIONS) * SIDE, SIDE)
            assert strip.getpixel((SIDE, 0)) == (41, 41, 41)  # the second caption


def test_a_row_is_replaced_and_another_protocol_is_refused(tmp_path):
    board = tmp_path / "board"
    enter(board, make_results(tmp_path / "old", make_row("ldm", 50.0)), "shapes", 20)
    enter(board, make_results(tmp_path / "new", make_row("ldm", 97.0)), "shapes", 20)
    (standing,) = tables.models(rows_of(board))
    assert standing.value(tables.HEADLINE).mean == 97.0
    before = (board / "results.json").read_bytes()
    other = make_results(tmp_path / "other", make_row("dfgan", 60.0), protocol="b" * 64)
    with pytest.raises(UserError, match=r"protocol bbbbbbbbbbbb is not the board's \(aaaaaaaaaaaa"):
        enter(board, other, "shapes", 20)
    with pytest.raises(UserError, match=r"results of 'shapes', where 'pictures' belongs"):
        enter(tmp_path / "new board", other, "pictures", 10)
    assert (board / "results.json").read_bytes() == before
    enter(
        board,
        make_results(tmp_path / "s", make_row("ldm", 9.0), make_row("ldm", 7.0, seed=1)),
        "shapes",
        20,
    )
    enter(board, make_results(tmp_path / "one", make_row("ldm", 90.0)), "shapes", 20)
    assert [row.name for row in rows_of(board).rows if row.kind == "model"] == ["ldm"]
    assert not (board / "ldm-seed1.png").exists()
    assert rows_of(board).budget == {"minutes": 20}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"config": {"minutes": 10.0}}, "10 minutes with 1 threads"),
        ({"config": {"minutes": None}}, "a number of steps with 1 threads"),
        ({"threads": 2}, "20 minutes with 2 threads"),
    ],
)
def test_a_row_of_another_budget_is_refused(tmp_path, part, told):
    row = make_row("ldm", 95.0)
    row = replace(row, training={**row.training, **part})
    with pytest.raises(UserError, match=f"'ldm' was trained for {told}, where 20 minutes"):
        enter(tmp_path / "board", make_results(tmp_path / "found", row), "shapes", 20)
    assert not (tmp_path / "board").exists()


def test_the_pages_say_what_the_rows_say(clone, tmp_path, monkeypatch, capsys):
    found = make_results(tmp_path / "found", make_row("dfgan", 60.0), make_row("ldm", 95.0))
    monkeypatch.chdir(clone)
    main(["--enter", str(found)])
    assert capsys.readouterr().out == "entered: dfgan, ldm\n"
    page = (clone / "docs/board.md").read_text()
    assert page.count("kept") == 6
    assert "old" not in page
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = {line.split("|")[2].strip(): line for line in lines}
    ldm = cells["[ldm](../plugins/models/ldm/README.md)"]
    assert "| diffusion | **95.0 (92.0\N{EN DASH}97.0)** | 47.5 | 47.5 | 2.50 | 9.50 |" in ldm
    assert "| 0.0200 |" in ldm
    assert "| 1,234 | 2.5 M |" in ldm
    assert lines.index(ldm) < lines.index(cells["[dfgan](../plugins/models/dfgan/README.md)"])
    assert "mode collapse" in page
    assert "Without a row yet: `aligndraw`, `attngan`, " in page
    assert "`ldm`, " not in page
    readme = (clone / "README.md").read_text().splitlines()
    shown = [line.split("](")[0].removeprefix("| [") for line in readme if line.startswith("| [")]
    assert shown[:2] == ["ldm", "dfgan"]
    assert sorted(shown) == [spec.name for spec in registry().models]
    assert (
        "`ldm` gets 95.0 (92.0\N{EN DASH}97.0) %"
        in (clone / "plugins/models/ldm/README.md").read_text()
    )
    assert json.loads((clone / "benchmarks/board/figures.json").read_text()) == {
        "dfgan": [60.0, 57.0, 62.0],
        "ldm": [95.0, 92.0, 97.0],
    }
    with Image.open(clone / "docs/board.png") as sheet:
        assert sheet.width > 2 * len(CAPTIONS) * SIDE
    assert ">ldm<" in (clone / "docs/board.svg").read_text()


def test_a_document_without_a_place_is_named(clone, tmp_path):
    (clone / "README.md").write_text("no place")
    enter(
        clone / "docs/board", make_results(tmp_path / "found", make_row("ldm", 95.0)), "shapes", 20
    )
    results = rows_of(clone / "docs/board")
    with pytest.raises(UserError, match=r"README.md: put the lines '<!-- board -->'"):
        write_pages(clone, results)
    with pytest.raises(UserError, match=r"page.md: .*end of x"):
        filled("a <!-- x --> b", "x", "c", "page.md")


@pytest.mark.parametrize(
    ("steps", "said"),
    [(1234, "all right, after twenty minutes of one core."), (0, "all right. Nothing is trained.")],
)
def test_a_page_says_whether_its_model_was_trained(clone, tmp_path, steps, said):
    row = make_row("ldm", 95.0)
    row = replace(row, training={**row.training, "steps": steps})
    enter(clone / "docs/board", make_results(tmp_path / "found", row), "shapes", 20)
    write_pages(clone, rows_of(clone / "docs/board"))
    assert said in (clone / "plugins/models/ldm/README.md").read_text()


def test_upsamplers_are_timed_but_not_compared():
    assert "upsampler" in named_models("all")
    assert "upsampler" not in wanted_models()
    chosen = choose_models(find_benchmark("shapes", None), "all", {})
    assert "upsampler" not in chosen
    assert "deepfloyd" in chosen
    assert "ldm" in wanted_models()


def test_pictures_have_a_section_of_their_own_without_real_images(clone, tmp_path, monkeypatch):
    rows = [make_row(name, right, minutes=10) for name, right in (("dfgan", 60.0), ("ldm", 95.0))]
    found = make_results(tmp_path / "found", *rows, benchmark="pictures")
    document = json.loads((found / "results.json").read_text())
    for row in (row for row in document["rows"] if row["kind"] == "model"):
        row["training"]["config"]["data"] = {"dir": "/home/ann/emoji"}
    (found / "results.json").write_text(json.dumps(document))
    page = clone / "docs/board.md"
    page.write_text(page.read_text() + "<!-- emoji -->old<!-- end of emoji -->")
    monkeypatch.chdir(clone)
    main(["--pictures", str(tmp_path / "emoji"), "--enter", str(found)])
    assert page.read_text().count("old") == 6  # the parts of `shapes` are as they were
    assert page.read_text().index("](board-emoji.png)") > page.read_text().index("**95.0 (92.0")
    assert (clone / "docs/board-emoji.png").stat().st_size > 0
    rows = clone / "docs/board/emoji"
    assert {file.name for file in rows.iterdir()} == {"dfgan.png", "ldm.png", "results.json"}
    assert "ann" not in (rows / "results.json").read_text()


def test_the_best_of_shapes_are_trained_on_pictures(tmp_path):
    names = wanted_models()
    rows = [make_row(name, 90.0 - place) for place, name in enumerate(names)]
    enter(tmp_path / SHAPES.rows, make_results(tmp_path / "found", *rows), "shapes", 20)
    section = of_pictures(tmp_path / "emoji")
    assert section.wanted(tmp_path) == names[:12]
    assert SHAPES.wanted(tmp_path) == []
    other = make_results(tmp_path / "other", make_row(names[1], 1.0))
    enter(tmp_path / section.rows, other, "shapes", 20)
    assert section.wanted(tmp_path) == [names[0], *names[2:12]]
    assert section.bench[:3] == ("pictures", "--data-dir", str(tmp_path / "emoji"))


def test_figures_of_this_version_are_scores_of_its_models():
    assert set(figures.figures()) <= {spec.name for spec in registry().models}
    for figure in figures.figures().values():
        assert 0 <= figure.low <= figure.all_right <= figure.high <= 100


@pytest.mark.parametrize(
    ("place", "given", "told"),
    [
        ("elsewhere", ["--models", "ldm"], "no clone of the repository"),
        ("clone", ["--models", "ldn"], "did you mean 'ldm'"),
        ("clone", ["--pictures", "emoji"], "end of emoji"),
        ("clone", ["--pictures", "quality"], "is none of quality, missing"),
        ("clone", ["--pictures", "my pictures"], "give it another"),
        ("clone", ["--pages"], "no row yet"),
    ],
)
def test_what_cannot_be_done_is_one_line(clone, tmp_path, monkeypatch, place, given, told):
    (tmp_path / place).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / place)
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert told in ended.value.code
    assert len(ended.value.code.splitlines()) == 1
    assert not (tmp_path / place / "runs").exists()
