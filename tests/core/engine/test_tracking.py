"""Trackers: what they receive, that training does not depend on them, and what is said when one
fails or is missing. Everything stays on this machine."""

import json
import os
import subprocess
import sys

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2i.cli.main import main
from t2i.core.engine import resume, train
from t2i.core.engine import tracking as module
from t2i.core.engine.reporting import Silent
from t2i.core.engine.tracking import check_trackers, flat, tracked_values
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.core.runs.hashing import run_hash

pytestmark = pytest.mark.usefixtures("toy")


class Words(Silent):
    def __init__(self, on=None):
        self.texts, self.on = [], on or (lambda text: None)

    def say(self, text):
        self.texts.append(text)
        self.on(text)


def start(out, *sets, on=None):
    words = Words(on)
    train(resolve_config("toy", sets=["log_every=2", *sets]), out, reporter=words)
    return Run(out), words


def log_of(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def weights(run):
    return load_tensors(run.model / "generator.safetensors", "x")


class Fake(GeneralTracker):
    """A tracker that keeps what it receives, and fails where it is told to."""

    name = "fake"
    requires_logging_directory = False
    calls, fails = [], ()

    def __init__(self, project, **options):
        super().__init__()
        self.calls.append(("made", project, options))

    @property
    def tracker(self):
        return self

    def _call(self, *call):
        torch.rand(3)  # as a careless library does
        self.calls.append(call)
        if call[0] in self.fails:
            raise OSError("network is gone")

    def start(self):
        self._call("start")

    def store_init_configuration(self, values):
        self._call("settings", values)

    def log(self, values, step=None, **_):
        self._call("log", step, values)

    def log_images(self, values, step=None, **_):
        self._call("images", step, values)

    def finish(self):
        self._call("finish")

    @classmethod
    def named(cls, kind):
        return [call for call in cls.calls if call[0] == kind]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", Fake)
    monkeypatch.setattr(Fake, "calls", [])
    monkeypatch.setattr(Fake, "fails", ())
    return Fake


@pytest.mark.parametrize("setting", ["track=tensorboard", "tensorboard=true"])
def test_tensorboards_files_hold_the_log_the_grids_and_the_configuration(tmp_path, setting):
    run, _ = start(tmp_path / "run", setting)
    assert run.config().settings.track == ("tensorboard",)
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    for name in ("generator", "critic"):
        found = {scalar.step: scalar.value for scalar in board.Scalars(f"only/{name}")}
        assert found == pytest.approx({e["step"]: e["losses"][name] for e in log_of(run)})
    rates = [scalar.value for scalar in board.Scalars("learning_rate/critic")]
    assert rates == pytest.approx([0.01] * 3)
    assert [image.step for image in board.Images("samples")] == [6]
    (settings,) = run.path.glob("tensorboard/*/hparams.yml")
    fingerprint = json.loads(run.config_file.read_text())["data_fingerprint"]
    expected = run_hash(run.config().dump(), fingerprint)
    assert f"run_hash: {expected}" in settings.read_text()


def test_training_is_the_same_with_and_without(tmp_path, fake):
    plain, _ = start(tmp_path / "plain")
    tracked, words = start(tmp_path / "tracked", "track=fake,tensorboard")
    ours, theirs = weights(plain), weights(tracked)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    drop = {"images_per_second", "seconds"}
    logs = [
        [{key: entry[key] for key in entry.keys() - drop} for entry in log_of(run)]
        for run in (plain, tracked)
    ]
    assert logs[0] == logs[1]
    assert not plain.trackers_file.exists()
    assert [step for _, step, _ in fake.named("log")] == [2, 4, 6]
    assert fake.calls[-1] == ("finish",)
    assert not any("warning" in text for text in words.texts)


@pytest.mark.parametrize(
    ("where", "said"),
    [("start", "cannot be started"), ("log", "failed at step 2"), ("finish", "did not finish")],
)
def test_a_tracker_that_fails_is_said_once_and_training_goes_on(tmp_path, fake, where, said):
    fake.fails = (where,)
    run, words = start(tmp_path / "run", "track=fake,tensorboard")
    warnings = [text for text in words.texts if text.startswith("warning")]
    assert len(warnings) == 1
    assert f"tracker fake {said} (OSError: network is gone)" in warnings[0]
    assert len(fake.named(where)) == 1
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [scalar.step for scalar in board.Scalars("only/critic")] == [2, 4, 6]
    assert run.complete


def test_a_resumed_run_goes_on_in_the_same_tracked_run(tmp_path, fake):
    def stop(text):
        if "step-3.png" in text:
            os.kill(os.getpid(), 2)

    sets = ("track=tensorboard,fake", "sample_every=3")
    with pytest.raises(Interrupted):
        start(tmp_path / "run", *sets, on=stop)
    run = Run(tmp_path / "run")
    before = json.loads(run.trackers_file.read_text())
    assert fake.calls[-1] == ("finish",)
    resume(run.path, reporter=Words())
    assert json.loads(run.trackers_file.read_text()) == before
    assert len(fake.named("settings")) == 1  # not told again
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [scalar.step for scalar in board.Scalars("only/critic")] == [2, 4, 6]


def test_one_that_is_unknown_or_missing_is_refused_before_training(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no tracker is named 'tensorbord'; did you mean"):
        start(tmp_path / "a", "track=tensorbord")
    monkeypatch.setattr(module, "get_available_trackers", list)
    with pytest.raises(UserError, match=r"^track: comet_ml is not installed: pip install comet-ml"):
        start(tmp_path / "b", "track=comet_ml")
    with pytest.raises(UserError, match=r"pip install 't2i-zoo\[tensorboard\]'$"):
        check_trackers(["tensorboard"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["trackio, wandb"], ["trackio", "--track", "wandb,trackio"]])
def test_the_option_takes_names_with_commas_between_and_is_repeatable(capfd, options):
    assert main(["train", "--model", "toy", "--track", *options, "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["track"] == ["trackio", "wandb"]


def test_scores_are_among_the_numbers_and_what_is_not_finite_is_not():
    entry = {
        "stage": "one", "step": 4, "losses": {"a": 1.5, "b": float("nan"), "c": None},
        "scores": {"fid": {"value": 12.5, "low": 12.0}, "clip": {"value": None}},
    }  # fmt: skip
    assert tracked_values(entry) == {"one/a": 1.5, "scores/fid": 12.5}


def test_the_hash_of_a_run_knows_settings_and_data_but_no_place():
    settings = {"lr": 0.1, "data": {"name": "d", "dir": "/a"}, "track": ["wandb"]}
    moved = {"lr": 0.1, "data": {"name": "d", "dir": "/b"}, "track": []}
    assert run_hash(settings, "f") == run_hash(moved, "f")
    others = {run_hash({**moved, "lr": 0.2}, "f"), run_hash(moved, "g"), run_hash(moved, "f")}
    assert len(others) == 3
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": None}


TRACKIO = """
import json, socket, sys
asked = []
def refuse(self, address, *_):
    if self.family != socket.AF_UNIX:
        asked.append(str(address))
        raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
from pathlib import Path
from PIL import Image
from accelerate import PartialState
from t2i.core.engine.tracking import Trackers
PartialState(cpu=True)  # as every training has it
from t2i.core.runs.folder import Run
run, said = Run(Path(sys.argv[1])), []
run.path.mkdir()
Image.new("RGB", (8, 8), "red").save(run.path / "grid.png")
for step in (1, 2):
    trackers = Trackers(["trackio"], run, said.append)
    with trackers.following(lambda: {"model": "toy", "run_hash": "abc"}, step - 1):
        trackers.log({"stage": "only", "step": step, "losses": {"a": step / 2}})
        trackers.grid(run.path / "grid.png", step)
from trackio.sqlite_storage import SQLiteStorage as Store
names = Store.get_runs("t2i")
found = {"logs": Store.get_logs("t2i", names[0]), "config": Store.get_run_config("t2i", names[0])}
print("@@", json.dumps({**found, "names": names, "asked": asked, "said": said}), "@@")
"""


def test_trackio_holds_one_run_with_its_grids_and_asks_no_network(tmp_path):
    pytest.importorskip("trackio", reason="the extra trackio")
    variables = {**os.environ, "TRACKIO_DIR": str(tmp_path / "kept")}
    variables |= {"HOME": str(tmp_path), "HF_TOKEN": "hf_none"}  # whose owner nobody asks for
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO, str(tmp_path / "run")], env=variables, timeout=240,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.split("@@")[1])
    assert (found["asked"], found["said"], len(found["names"])) == ([], [], 1)
    losses = [entry["only/a"] for entry in found["logs"] if "only/a" in entry]
    assert losses == [0.5, 1.0]
    assert len([entry for entry in found["logs"] if "samples" in entry]) == 2
    assert found["config"]["run_hash"] == "abc"
