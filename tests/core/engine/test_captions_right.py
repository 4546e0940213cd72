"""The test of captions while training: what it counts and says, and that it changes nothing."""

import json
import os
import signal

import numpy as np
import pytest

from t2i.core import engine
from t2i.core.engine import grid_clock, meter, testing
from t2i.core.engine.captions_right import TESTED, CaptionTest
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Interrupted
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.core.runs.folder import Run


class Moved(Silent):
    def __init__(self):
        self.notes = []

    def moved(self, status):
        self.notes.append(status.note)


@pytest.fixture
def often(monkeypatch):
    """Grids and tests are due at every step."""
    monkeypatch.setattr(testing, "EVERY", 1e-9)
    monkeypatch.setattr(testing, "SHARE", 1e9)
    monkeypatch.setattr(grid_clock, "PARTS", 1e9)
    monkeypatch.setattr(meter, "EVERY", 0.0)
    monkeypatch.setitem(GridClock.__init__.__kwdefaults__, "share", 1e9)


def read_by(monkeypatch, reader):
    def of(cls, data, dataset, seed):
        return reader and cls(("red", "blue", "red", "blue"), reader, seed)

    monkeypatch.setattr(CaptionTest, "of", classmethod(of))


def config(*sets):
    return resolve_config("toy", sets=["steps=6", "log_every=2", "sample_seconds=1e-9", *sets])


def lines(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def weights(run):
    return (run.model / "generator.safetensors").read_bytes()


@pytest.mark.usefixtures("toy", "often")
def test_it_is_told_and_logged_and_changes_nothing(tmp_path, monkeypatch):
    read_by(monkeypatch, lambda images, captions: [caption == "red" for caption in captions])
    moved = Moved()
    with_it = engine.train(config(), tmp_path / "with", reporter=moved)
    assert "all right 50% (of 4 captions)" in moved.notes
    found = [line.get("captions_right") for line in lines(with_it)]
    assert found[0] == {"step": 1, "right": 2, "captions": 4}
    assert all(one["right"] == 2 for one in found)
    read_by(monkeypatch, None)
    without = engine.train(config(), tmp_path / "without", reporter=Silent())
    assert weights(with_it) == weights(without)
    assert [line["losses"] for line in lines(with_it)] == [
        line["losses"] for line in lines(without)
    ]
    assert not any("captions_right" in line for line in lines(without))


@pytest.mark.usefixtures("toy", "often")
def test_a_signal_while_it_reads_stops_the_run_and_resuming_gives_the_same(tmp_path, monkeypatch):
    read_by(monkeypatch, None)
    whole = engine.train(config(), tmp_path / "whole", reporter=Silent())

    def stop(images, captions):
        os.kill(os.getpid(), signal.SIGINT)
        return [True] * len(captions)

    read_by(monkeypatch, stop)
    with pytest.raises(Interrupted):
        engine.train(config(), tmp_path / "run", reporter=Silent())
    read_by(monkeypatch, lambda images, captions: [True] * len(captions))
    engine.resume(tmp_path / "run", reporter=Silent())
    assert weights(Run(tmp_path / "run")) == weights(whole)
    step = "step-6.png"
    assert (tmp_path / "run" / "samples" / step).read_bytes() == (whole.samples / step).read_bytes()


def test_the_first_one_waits_until_its_expected_cost_is_a_small_share(monkeypatch):
    now = 0.0
    clock = GridClock(60, lambda: now, first=60, share=0.02)
    clock.expect(3.0)
    now = 149.0
    assert not clock.due()
    now = 151.0
    assert clock.due()
    with clock.drawing():
        now += 1.0
    clock.expect(100.0)  # known by now
    now = 211.0
    assert not clock.due()
    now = 213.0
    assert clock.due()


def test_shapes_has_a_reader_that_finds_its_own_images_right():
    settings = resolve_config("ldm").data
    held = open_dataset(settings, "val")
    test = CaptionTest.of("shapes", held, 0)
    assert len(test.captions) == TESTED
    images = np.stack([held[index].image for index in range(TESTED)])
    assert sum(test.reader(images, test.captions)) == TESTED
    assert sum(test.reader(images, test.captions[1:] + test.captions[:1])) < TESTED / 4


@pytest.mark.usefixtures("toy")
def test_data_without_a_reader_is_not_tested():
    data = resolve_config("toy").data
    assert CaptionTest.of(data.name, open_dataset(data), 0) is None
