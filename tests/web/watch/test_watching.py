"""The runs of a page: only its own, read once for all who look."""

import json
import shutil

import pytest
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.runs.folder import Run
from t2i.web.site import Site
from t2i.web.watch import page, watching
from t2i.web.watch.page import Look
from t2i.web.watch.watching import Watching

EVIL = "<img src=x onerror=alert(1)>${1}"


@pytest.fixture
def run(tmp_path):
    """`run(path, **config)`: a run that has begun."""

    def make(path, **config):
        folder = tmp_path / path
        folder.mkdir(parents=True)
        told = {"model": "toy", "preset": "tiny", "steps": 100, "data": {"name": "shapes"}}
        (folder / "config.json").write_text(json.dumps({"run": {**told, **config}}))
        entry = {"stage": "gan", "step": 25, "losses": {"real": 0.5, EVIL: 1.0}, "seconds": 50.0,
                 "images_per_second": 4.0}  # fmt: skip
        (folder / "metrics.jsonl").write_text(json.dumps(entry) + "\n")
        return folder

    return make


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_runs_are_found_by_name_alone(run, tmp_path):
    run("runs/a")
    run("runs/bench/runs/b")
    mine, secret = run("elsewhere/c"), run("secret/d")
    (tmp_path / "runs/link").symlink_to(secret)
    looked = Watching(
        Site(runs=tmp_path / "runs", named={"mine": mine, "hub": "owner/name"}), Clock()
    )
    assert set(looked.runs()) == {"a", "bench/runs/b", "mine"}
    assert looked.find("mine").run == Run(mine)
    for wrong in (str(secret), "../secret/d", "", None, "/", "a/"):
        with pytest.raises(UserError, match="no run"):
            looked.find(wrong)


def test_there_may_be_no_runs_yet(tmp_path):
    looked = Watching(Site(runs=tmp_path / "runs"), Clock())
    assert looked.rows() == []
    assert "no runs yet" in page.table([])


def test_the_list_is_read_again_after_a_while(run, tmp_path):
    run("runs/a")
    clock = Clock()
    looked = Watching(Site(runs=tmp_path / "runs"), clock)
    assert set(looked.runs()) == {"a"}
    run("runs/b")
    assert set(looked.runs()) == {"a"}
    clock.now = 2.5
    assert set(looked.runs()) == {"a", "b"}
    shutil.rmtree(tmp_path / "runs/a")
    clock.now = 5
    with pytest.raises(UserError, match="vanished"):
        looked.find("a")


def test_a_history_grows_and_begins_anew_with_another_log(run, tmp_path):
    folder = run("runs/a")
    looked = Watching(Site(runs=tmp_path / "runs"), Clock())
    with looked.history(Run(folder)) as history:
        assert history.lines == 1
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 26, "losses": {"real": 0.25}}\n')
    with looked.history(Run(folder)) as history:
        assert (history.lines, history.step) == (2, 26)
    other = tmp_path / "other"
    other.write_text('{"step": 3}\n')
    other.replace(folder / "metrics.jsonl")
    with looked.history(Run(folder)) as history:
        assert (history.lines, history.step, history.losses) == (1, 3, {})


def test_logs_in_memory_are_bounded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "MOST_OPEN", 2)
    looked = Watching(Site(runs=tmp_path / "runs"), Clock())
    for name in "abc":
        with looked.history(Run(run(f"runs/{name}"))):
            pass
    assert len(looked._opened) == 2


def test_no_name_is_markup(run, tmp_path):
    folder = run(f"runs/{EVIL.replace('/', '')}", model=EVIL, data={"name": EVIL})
    (folder / "samples").mkdir()
    (folder / "samples/captions.json").write_text(json.dumps({"captions": [EVIL]}))
    Image.new("RGB", (4, 4)).save(folder / "samples/step-5.png")
    looked = Watching(Site(runs=tmp_path / "runs"), Clock())
    ((name, listed, *_),) = looked.rows()
    with looked.history(listed.run) as history:
        shown = [page.table(looked.rows()), page.facts(name, listed, history, 5.0, EVIL),
                 page.charts(history, Look()), page.grid(listed.run, 5)]  # fmt: skip
    for html in shown:
        assert "&lt;img src=x" in html
        assert "<img src=x" not in html
        assert "${" not in html


def test_a_row_says_how_far_a_run_is(run, tmp_path):
    run("runs/a")
    looked = Watching(Site(runs=tmp_path / "runs"), Clock())
    table = page.table(looked.rows())
    for cell in (">toy (tiny)<", ">interrupted<", ">25<", ">25 %<", ">real 0.5<"):
        assert cell in table


def test_a_grid_that_is_being_written_is_no_error(run):
    folder = run("runs/a")
    (folder / "samples").mkdir()
    (folder / "samples/step-5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "samples/step-12.png").touch()
    (folder / "samples/step-x.png").touch()
    assert page.grids(Run(folder)) == [5, 12]
    assert "cannot be read" in page.grid(Run(folder), 5)
    assert page.grids(Run(folder / "gone")) == []
