"""A whole run of the toy model: what it writes, and that a resumed run is the run that was never
stopped."""

import json
import os
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.engine.running_time import RunningTime
from t2i.core.errors import Interrupted, T2IError, UserError
from t2i.core.io.sealed import verify
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from tests.stopped import stopped_at

pytestmark = pytest.mark.usefixtures("toy")


class Words(Silent):
    """Keeps what is said; `on` calls something when a text that begins so is said."""

    def __init__(self, on=None):
        self.texts, self.on = [], on or {}

    def say(self, text):
        self.texts.append(text)
        for start, action in self.on.items():
            if text.startswith(start):
                action()


def start(out, *sets, on=None):
    words = Words(on)
    train(resolve_config("toy", sets=sets), out, reporter=words)
    return Run(out), words


def everything(run):
    """All tensors of a run's newest checkpoint and of its model."""
    newest = max(run.checkpoints.glob("step-*"), key=lambda path: int(path.name[5:]))
    files = [*newest.glob("*.safetensors"), *run.model.glob("*.safetensors")]
    return {
        f"{p.parent.name}/{p.name}/{n}": t for p in files for n, t in load_tensors(p, "x").items()
    }


def assert_same(a, b):
    ours, theirs = everything(a), everything(b)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    drop = ("images_per_second", "seconds")
    logs = [
        [json.loads(line) for line in run.metrics_file.read_text().splitlines()] for run in (a, b)
    ]
    for log in logs:
        for entry in log:
            for key in drop:
                del entry[key]
    assert logs[0] == logs[1]


def test_a_run_directory_holds_what_was_promised(tmp_path):
    run, words = start(tmp_path / "run", "log_every=2")
    document = json.loads(run.config_file.read_text())
    assert document["run"]["model"] == "toy"
    assert document["data_fingerprint"] == "toy-train-8"
    assert document["run"]["encoder"]["words"] == [
        "a",
        "all",
        "blue",
        "green",
        "image",
        "over",
        "red",
    ]
    assert {"python", "torch", "t2i-zoo"} <= set(document["versions"])
    log = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [entry["step"] for entry in log] == [2, 4, 6]
    assert set(log[0]["losses"]) == {"generator", "critic"}
    assert log[0]["learning_rates"] == {"generator": 0.01, "critic": 0.01}
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-3", "step-6"]
    for folder in (*run.checkpoints.iterdir(), run.model):
        verify(folder, "x")
    assert (run.samples / "step-6.png").exists()
    summary = run.summary()
    assert (summary["steps"], summary["images"]) == (6, 24)
    trained = summary["parameters"]["trained"]
    assert trained > summary["parameters"]["generator"]
    assert run.complete
    assert any("step-6.png" in text for text in words.texts)


def test_training_trains(tmp_path):
    run, _ = start(
        tmp_path / "run", "steps=150", "batch_size=10", "checkpoint_every=500", "ema_decay=0.9"
    )
    log = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert log[-1]["losses"]["generator"] < 0.3 * log[0]["losses"]["generator"]
    red, blue = (
        np.asarray(image)[0, 0]
        for image in load(run.path, "cpu").sample(["a red image", "a blue image"])
    )
    assert red[0] > red[2] + 30
    assert blue[2] > blue[0] + 30


def test_the_model_holds_the_averaged_weights(tmp_path):
    run, _ = start(tmp_path / "run", "checkpoint_every=3", "ema_decay=0.5")
    folder = run.checkpoints / "step-3"
    ema = load_tensors(folder / "ema.safetensors", "x")
    live = load_tensors(folder / "modules.generator.safetensors", "x")
    assert not torch.equal(ema["generator.out.bias"], live["out.bias"])
    final = load_tensors(run.checkpoints / "step-6" / "ema.safetensors", "x")
    saved = load_tensors(run.model / "generator.safetensors", "x")
    assert torch.equal(final["generator.out.bias"], saved["out.bias"])  # adopted at the end


@pytest.mark.parametrize(
    "sets",
    [
        ("workers=0",),
        ("workers=1", "augment.flip=true", "augment.scale=1.25"),
        ("two_stages=true", "steps=9", "checkpoint_every=2"),
        ("two_stages=true", "steps=6", "checkpoint_every=1", "first_batch=2"),
        ("accumulate=2", "warmup=3", "lr_schedule=cosine", "grad_clip=0.1"),
        ("encoder.frozen=true", "ema_decay=0"),
        ("ema_sigma_rel=0.1",),
        ("ema_rampup=0.05",),
    ],
    ids=lambda sets: "-".join(sets),
)
def test_resuming_gives_the_weights_of_the_run_that_was_never_stopped(tmp_path, sets):
    whole, _ = start(tmp_path / "whole", "keep=9", *sets)
    for cut in sorted(whole.checkpoints.glob("step-*"))[:-1]:
        part = stopped_at(whole, int(cut.name[5:]), tmp_path / f"from-{cut.name}")
        shutil.rmtree(part.model)
        torch.manual_seed(12345)  # the state of this process must not matter
        resume(part.path, reporter=Words())
        assert_same(whole, part)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops_and_the_run_goes_on(tmp_path, number, code):
    whole, _ = start(tmp_path / "whole", "sample_every=2")
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="t2i train --resume") as caught:
        start(
            tmp_path / "part",
            "sample_every=2",
            on={"images": lambda: os.kill(os.getpid(), number)},
        )
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before
    part = Run(tmp_path / "part")
    assert sorted(p.name for p in part.checkpoints.iterdir()) == ["step-0", "step-2"]
    assert load(part.path, "cpu").sample(["a red image"])  # an interrupted run can be sampled
    resume(part.path, reporter=Words())
    assert_same(whole, part)


def test_nan_stops_before_the_update_and_names_the_last_checkpoint(tmp_path):
    with pytest.raises(
        T2IError, match=r"step 4.*'generator' is not finite.*step-3.*--resume"
    ) as caught:
        start(tmp_path / "run", "explode_at=4")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    sound, _ = start(tmp_path / "sound", "steps=3", "lr_schedule=constant")
    ours = load_tensors(
        tmp_path / "run" / "checkpoints" / "step-3" / "modules.generator.safetensors", "x"
    )
    assert all(tensor.isfinite().all() for tensor in ours.values())
    assert sound.complete


def test_nan_may_be_skipped_and_is_counted(tmp_path):
    run, _ = start(tmp_path / "run", "explode_at=4", "on_nan=skip")
    assert run.summary()["skipped"] == 1
    assert all(
        tensor.isfinite().all()
        for tensor in load_tensors(run.model / "generator.safetensors", "x").values()
    )


def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path):
    run, _ = start(tmp_path / "run", "keep=9", "checkpoint_every=2")
    run.summary_file.unlink()
    path = run.checkpoints / "step-6" / "ema.safetensors"
    for name in ("step-6/state.json", "step-4/modules.generator.safetensors"):
        path = run.checkpoints / name
        path.write_bytes(path.read_bytes()[:-1])
    words = Words()
    resume(run.path, reporter=words)
    assert sum(text.startswith("warning: skipped") for text in words.texts) == 2
    assert any("resuming toy at step 2" in text for text in words.texts)
    run.summary_file.unlink()
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="no sound checkpoint"):
        resume(run.path, reporter=Words())


def test_what_cannot_begin_or_go_on_says_why(tmp_path, monkeypatch):
    run, _ = start(tmp_path / "run")
    with pytest.raises(UserError, match=r"is there already.*--resume.*--out"):
        start(tmp_path / "run")
    words = Words()
    resume(run.path, reporter=words)
    assert "complete" in words.texts[-1]
    with pytest.raises(UserError, match="is no run"):
        resume(tmp_path / "nothing", reporter=Words())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file.*(there already|choose another)"):
        start(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write to .*choose another --out"):
        start(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"batch_size \(4\) must be a multiple of accumulate \(3\)"):
        resolve_config("toy", sets=["accumulate=3"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(UserError, match=r"only 0\.0 GB are free"):
        start(tmp_path / "full")
    room = shutil._ntuple_diskusage(10**6, 0, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    assert start(tmp_path / "few", "keep=1000000")[0].complete  # so many are never written


def test_a_run_that_could_not_begin_may_be_begun_again(tmp_path, monkeypatch):
    from t2i.core.engine import training

    def broken(*arguments, **more):
        raise UserError("no weights")

    with monkeypatch.context() as patch:
        patch.setattr(training, "build", broken)
        with pytest.raises(UserError, match="no weights"):
            start(tmp_path / "run")
    assert start(tmp_path / "run")[0].complete


def test_two_processes_cannot_train_one_run(tmp_path):
    from filelock import FileLock

    run, _ = start(tmp_path / "run")
    with FileLock(run.path / ".lock"), pytest.raises(UserError, match="trained by another process"):
        resume(run.path, reporter=Words())


def test_a_changed_data_set_is_refused(tmp_path, monkeypatch):
    run, _ = start(tmp_path / "run")
    run.summary_file.unlink()
    import sys

    monkeypatch.setattr(sys.modules["t2i_toy"].data, "fingerprint", lambda self: "other")
    with pytest.raises(UserError, match="'toydata' is not the one"):
        resume(run.path, reporter=Words())


def test_a_time_budget_ends_and_is_shared_by_the_stages(tmp_path, monkeypatch):
    clock, main = iter(range(10**6)), threading.main_thread()

    def tick(_):
        """Every step takes one second. The thread that watches for pauses moves no clock."""
        return float(next(clock)) if threading.current_thread() is main else 0.0

    monkeypatch.setattr(RunningTime, "__call__", tick)
    run, _ = start(tmp_path / "run", "two_stages=true", "minutes=0.15")
    assert [stage["steps"] for stage in run.summary()["stages"]] == [3, 6]
    assert run.summary()["seconds"] == 9


def test_a_stage_may_have_a_batch_size_of_its_own(tmp_path, monkeypatch):
    steps, toy = [], sys.modules["t2i_toy"].Trainer
    step = toy.step
    monkeypatch.setattr(
        toy, "step", lambda self, b, engine: steps.append(b.keys) or step(self, b, engine)
    )
    run, _ = start(tmp_path / "run", "two_stages=true", "steps=6", "first_batch=3", "log_every=1")
    assert [len(keys) for keys in steps] == [3, 3, 4, 4, 4, 4]
    seen = [key for keys in steps for key in keys]
    assert (
        len({*seen[:10]}) == len({*seen[10:20]}) == 10
    )  # each image of the data set once before any comes again
    assert run.summary()["images"] == 22
    with pytest.raises(UserError, match=r"batch_size \(3\) must be a multiple of accumulate \(2\)"):
        start(tmp_path / "odd", "two_stages=true", "first_batch=3", "accumulate=2")


def test_options_of_the_engine_train_too(tmp_path):
    run, _ = start(tmp_path / "run", "precision=bf16", "channels_last=true")
    assert run.summary()["precision"] == "bf16"
