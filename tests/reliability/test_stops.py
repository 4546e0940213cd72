"""What stops a run, or must not: numbers that are not finite, signals, another process; and nothing
is left behind."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import T2IError
from t2i.core.interfaces.trainer import optimizations
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

MODELS = ("ldm", "ddpm", "ddim", "dfgan", "galip", "attngan", "stackgan")
LONG = ("steps=100000", "sample_every=100000", "checkpoint_every=100000", "keep=1")


def until(condition):
    """Waits, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def steps_taken(out):
    path = Path(f"{out}.order")
    return (
        len({tuple(json.loads(line)[:1]) for line in path.read_text().splitlines()})
        if path.exists()
        else 0
    )


# --- numbers that are not finite ------------------------------------------------------------------


class Poisoned:
    """The engine as a trainer sees it, which spoils the first update of each optimizer."""

    def __init__(self, engine, trainer, seen, spoil):
        self._engine, self._trainer, self._seen, self._spoil = engine, trainer, seen, spoil

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def update(self, name, loss):
        if name in self._seen:
            return self._engine.update(name, loss)
        before = self._weights()
        self._seen.append(name)
        try:
            self._engine.update(name, self._spoil(self._trainer, name, loss))
        finally:
            assert all(
                torch.equal(ours, theirs)
                for ours, theirs in zip(self._weights(), before, strict=True)
            ), name

    def _weights(self):
        return [
            p.detach().clone()
            for module in self._trainer.modules.values()
            for p in module.parameters()
        ]


def bad_loss(trainer, name, loss):
    return loss * float("nan")


def bad_gradient(trainer, name, loss):
    """The loss stays what it is; its gradient is sqrt'(0) * 0."""
    weights = optimizations(trainer)[name].parameters[0]
    return loss + (weights.sum() * 0).sqrt()


def spoiling(seen, spoil):
    """A wrapper of stages (t2i.core.engine.training.Wrap). seen: the optimizers of each stage, as
    they are met."""

    def wrap(stage):
        met = []
        seen[stage.name] = met

        def made(networks):
            trainer = stage.trainer(networks)
            step = trainer.step
            trainer.step = lambda batch, engine: step(batch, Poisoned(engine, trainer, met, spoil))
            seen[stage.name, "optimizers"] = set(trainer.optimizers)
            return trainer

        return replace(stage, trainer=made)

    return wrap


@pytest.mark.parametrize(
    "model", ["stackgan", *(pytest.param(m, marks=pytest.mark.slow) for m in MODELS)]
)
@pytest.mark.parametrize("spoil", [bad_gradient, pytest.param(bad_loss, marks=pytest.mark.slow)])
def test_no_optimizer_of_any_model_takes_what_is_not_finite(tmp_path, small, model, spoil):
    """Each optimizer's first update is spoilt, left out and counted, and everything else goes
    on."""
    seen = {}
    config = resolve_config(model, sets=small(model, "on_nan=skip", "steps=12"))
    run = train(config, tmp_path / "run", reporter=Silent(), wrap=spoiling(seen, spoil))
    stages = [name for name in seen if isinstance(name, str)]
    assert all(set(seen[name]) == seen[name, "optimizers"] for name in stages), seen
    assert run.summary()["skipped"] == sum(len(seen[name]) for name in stages)
    assert all(
        x.isfinite().all() for x in load_tensors(run.model / "generator.safetensors", "x").values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_loss_that_is_not_finite_stops_the_run_which_can_go_on_without_it(tmp_path, small, model):
    def infinite(trainer, name, loss):
        return loss * float("inf")

    config = resolve_config(model, sets=small(model))
    with pytest.raises(
        T2IError, match=r"stopped before the update.*step-\d+.*--resume .*--on-nan skip"
    ) as caught:
        train(config, tmp_path / "run", reporter=Silent(), wrap=spoiling({}, infinite))
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    run = resume(tmp_path / "run", on_nan="skip", reporter=Silent(), wrap=spoiling({}, bad_loss))
    assert run.summary()["skipped"] > 0
    assert run.config().settings.on_nan == "skip"


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_within_a_step_and_leaves_no_worker(tmp_path, train, number):
    out = tmp_path / "run"
    process = train(out, "dfgan", *LONG, "workers=1")
    until(lambda: steps_taken(out) > 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    before = steps_taken(out)
    os.kill(process.pid, number)
    assert process.wait().code == 128 + number, process.err
    taken = steps_taken(out)
    assert taken <= before + 2  # one that was being counted, one that was being taken
    how = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    assert f"\nstopped{how}, saved at step {taken};" in process.err
    assert "error" not in process.err  # it was asked for
    assert (out / "checkpoints" / f"step-{taken}" / "manifest.json").is_file()
    assert not psutil.wait_procs(workers, timeout=20)[1]


STUCK = """
import time
from t2i.cli.main import main
from t2i.core.engine.saving import Saving

def stuck(self, *_, **__):
    if self._context.state.step:
        print("saving", flush=True)
        time.sleep(1000)

Saving.write = stuck
raise SystemExit(main({argv!r}))
"""


def test_a_second_signal_ends_it_at_once_workers_and_all(tmp_path, nursery, small):
    out = tmp_path / "run"
    sets = [
        word
        for s in small("dfgan", *LONG, "checkpoint_every=2", "workers=2")
        for word in ("--set", s)
    ]
    argv = ["train", "--model", "dfgan", "--out", str(out), *sets]
    process = nursery.start(script=STUCK.format(argv=argv))
    until(lambda: "saving" in process.err)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait().code == 130
    assert not psutil.wait_procs(workers, timeout=20)[1]


def test_workers_of_a_killed_process_end_too(tmp_path, train):
    out = tmp_path / "run"
    process = train(out, "dfgan", *LONG, "workers=2", "batch_size=64")  # more than a pipe holds
    until(lambda: steps_taken(out) > 0)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, timeout=20)[1]


# --- two at once ----------------------------------------------------------------------------------


def test_of_two_processes_on_one_run_one_wins_and_the_other_says_so(tmp_path, train, nursery):
    out = tmp_path / "run"
    first = train(out, "dfgan", *LONG)
    until(lambda: steps_taken(out) > 0)
    second = nursery("train", "--resume", out)
    assert second.code == 2
    assert second.err.splitlines() == [
        f"error: {out} is being trained by another process: wait for it, or choose another --out"
    ]
    third = nursery("train", "--model", "dfgan", "--out", out)
    assert third.code == 2
    assert "being trained by another process" in third.err
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait().code == 143


@pytest.mark.slow
def test_two_that_begin_at_once_leave_one_run(tmp_path, train, reference, assert_same):
    whole = reference("dfgan")
    for attempt in range(10):
        out = tmp_path / str(attempt)
        both = [train(out, "dfgan") for _ in range(2)]
        assert sorted(process.wait().code for process in both) == [0, 2]
        assert_same(whole, out)
        assert Run(out).complete
