"""Killed anywhere, a run goes on to be, bit for bit, the run that was never stopped.

Compared are all checkpoints (weights, optimizers, averages, random states), the model, images, log,
and what each step saw. The process is a real one, and SIGKILL ends it.
"""

import os
import random
import signal
import time
from itertools import count
from pathlib import Path

import pytest

MODELS = ("ldm", "ddpm", "ddim", "dfgan", "galip", "attngan", "stackgan")
WORKERS = ("workers=0", "workers=2")


@pytest.fixture
def survives(train, reference, assert_same, tmp_path):
    """`survives(model, sets, kills)`: killed again and again, then left alone, it is what the
    reference is. kills: numbers of events (see nursery.py), or moments as shares of the time that
    training takes."""
    numbers = count()

    def go(model, sets, kills):
        whole = reference(model, *sets)
        out = tmp_path / f"{model}-{next(numbers)}"
        for kill in kills:
            if isinstance(kill, int):
                process = train(out, model, *sets, watched=out, kill_at=kill).wait()
            else:
                process = train(out, model, *sets)
                time.sleep(kill * duration(whole))
                os.kill(process.pid, signal.SIGKILL)
            assert process.wait().code in (0, -signal.SIGKILL), process.err
        done = train(out, model, *sets).wait()
        assert done.code == 0, done.err
        assert_same(whole, out)

    return go


def events(run):
    return Path(f"{run}.events").read_text().splitlines()


def duration(run):
    return (run / "summary.json").stat().st_mtime - (run / "config.json").stat().st_mtime


def number(lines, wanted, after=""):
    """The number, from 1, of the first event that begins so, after the first that holds `after`."""
    begin = next(i for i, line in enumerate(lines) if after in line)
    return next(i for i, line in enumerate(lines[begin:], begin + 1) if line.startswith(wanted))


def save_at(lines, step):
    """The numbers of all events of the save at a step, of checkpoint, model and pruning."""
    first = next(i for i, line in enumerate(lines) if f"/.step-{step}." in line)
    later = (
        i
        for i, line in enumerate(lines[first:], first)
        if "/.step-" in line and f"/.step-{step}." not in line
    )
    return range(first + 1, next(later, len(lines)) + 1)


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        ("half writing .config.json", ""),
        ("half writing checkpoints/.step-4.", "/.step-4."),
        ("before replace model", "/.step-4."),  # the old model has stepped aside
        ("before mkdir .model", "/.step-9."),  # the last checkpoint is there, its model is not
    ],
)
def test_killed_in_the_midst_of_a_save_it_goes_on(survives, reference, wanted, after):
    lines = [line.replace(".tmp", "") for line in events(reference("dfgan"))]
    survives("dfgan", (), [number(lines, wanted, after)])


def test_killed_with_two_loader_workers_it_goes_on(survives):
    survives("stackgan", ("workers=2",), [0.6])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "step"), [("dfgan", 0), ("dfgan", 4), ("ldm", 2), ("stackgan", 9)]
)
def test_killed_at_every_step_of_a_save(survives, reference, model, step):
    """The first save of all, one within a stage, one at the end of a stage, and the last."""
    for event in save_at(events(reference(model)), step):
        survives(model, (), [event])


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("model", MODELS)
def test_killed_at_random_steps_of_saves(survives, reference, model, workers):
    draw = random.Random(f"{model}-{workers}")
    whole = len(events(reference(model, workers)))
    for _ in range(4):
        survives(
            model,
            (workers,),
            [draw.randint(1, whole), draw.randint(1, whole // 2), draw.randint(1, whole // 4)],
        )


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("model", MODELS)
def test_killed_at_random_moments(survives, model, workers):
    draw = random.Random(f"{model} {workers}")
    for _ in range(3):
        survives(model, (workers,), [draw.random(), draw.random()])
