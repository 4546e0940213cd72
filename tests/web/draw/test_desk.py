"""The queue of drawings, and the shelf of models."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from t2i.core.errors import UserError
from t2i.web.draw.desk import Desk, Job
from t2i.web.draw.shelf import Shelf
from t2i.web.draw.sources import Source
from t2i.web.draw.studio import Studio
from t2i.web.draw.wish import Settings, Wish
from t2i.web.site import Limits, Site

PATIENCE = 60


@pytest.fixture
def desk():
    made = Desk(2)
    yield made
    made.close(PATIENCE)


class Slow:
    """Work that goes on until it may end, and checks for a cancellation."""

    def __init__(self):
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self, job):
        self.begun.set()
        while not self.end.wait(0.01):
            job.check()


def ended(job):
    waiting = threading.Event()
    for _ in range(PATIENCE * 100):
        if job.ended:
            return job.state
        waiting.wait(0.01)
    raise AssertionError(job.state)


def test_one_after_the_other(desk):
    work, order = Slow(), []
    first = desk.submit("a", work)
    assert work.begun.wait(PATIENCE)
    second, third = (desk.submit(name, lambda job: order.append(job.owner)) for name in "bc")
    assert [desk.place(job) for job in (first, second, third)] == [0, 1, 2]
    with pytest.raises(UserError, match="not done"):
        desk.submit("b", work)
    with pytest.raises(UserError, match="wait already"):
        desk.submit("d", work)
    desk.cancel("b")
    assert second.state == "cancelled"
    assert desk.place(third) == 1
    desk.cancel("a")
    assert ended(first) == "cancelled"
    assert ended(third) == "done"
    assert order == ["c"]


def test_a_failure_is_told_and_the_next_job_is_done(desk):
    def fail(job):
        raise UserError("so it is")

    assert ended(failed := desk.submit("a", fail)) == "failed"
    assert failed.error == "so it is"
    assert ended(desk.submit("a", lambda job: None)) == "done"


def test_a_job_that_is_cancelled_as_it_begins_stops_only_itself(desk, monkeypatch):
    """The visitor cancels after the desk has chosen the job, and before it does it."""
    run = Job.run

    def late(job):
        if job.owner == "a":
            desk.cancel("a")
        run(job)

    monkeypatch.setattr(Job, "run", late)
    assert ended(desk.submit("a", lambda job: None)) == "cancelled"
    assert ended(desk.submit("b", lambda job: None)) == "done"


def test_a_drawing_without_a_folder_does_not_hold_up_the_queue(tmp_path, monkeypatch):
    studio = Studio(Site(runs=tmp_path))
    monkeypatch.setattr("t2i.web.draw.studio.chosen", lambda *_: [])
    monkeypatch.setattr(studio, "album", lambda visitor: SimpleNamespace(new=full))
    with pytest.raises(OSError, match="full"):
        studio.begin("a", Wish((), ("a circle",), Settings("m")))
    assert ended(studio.desk.submit("b", lambda job: None)) == "done"
    studio.desk.close(PATIENCE)


def full(wish):
    raise OSError("the disk is full")


def test_closing_stops_what_is_done(desk):
    work = Slow()
    job = desk.submit("a", work)
    assert work.begun.wait(PATIENCE)
    desk.close(PATIENCE)
    assert job.state == "cancelled"
    with pytest.raises(UserError, match="stopping"):
        desk.submit("b", work)


@pytest.fixture
def shelf(tmp_path):
    """`shelf(**limits)`: a shelf of models of 400 bytes, and the names that it loaded."""

    def make(**limits):
        loaded = []

        def load(source):
            loaded.append(source.name)
            part = torch.nn.Linear(10, 10, bias=False)
            return SimpleNamespace(generator=part, text_encoder=torch.nn.Identity())

        sources = {name: Source(name, tmp_path / name) for name in "abc"}
        return Shelf(replace(Limits(), **limits), load), sources, loaded

    return make


def test_the_least_used_model_is_dropped(shelf):
    models, sources, loaded = shelf(models=2)
    for name in "abacab":
        models.model(sources[name])
        assert len(models) <= 2
    assert loaded == ["a", "b", "c", "b"]


def test_the_size_of_all_models_is_bounded(shelf):
    models, sources, _ = shelf(model_bytes=900)
    for name in "abc":
        models.model(sources[name])
    assert len(models) == 2
    models, sources, _ = shelf(model_bytes=10)
    models.model(sources["a"])
    assert len(models) == 1  # one model may be larger


def test_a_run_that_was_trained_further_is_loaded_again(shelf, tmp_path):
    models, sources, loaded = shelf()
    models.model(sources["a"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").touch()
    models.model(sources["a"])
    models.model(sources["a"])
    assert loaded == ["a", "a"]
    assert len(models) == 1
