"""Trainings at once: real processes train what one process trains, and stop when it does."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run import side_by_side
from t2i.benchmarks.run.plan import make_plan
from t2i.benchmarks.run.side_by_side import Training, jobs_at_once, train_together
from t2i.core import engine
from t2i.core.engine.reporting import Silent
from t2i.core.errors import T2IError, UserError
from t2i.core.io.json_files import write_json
from t2i.core.io.locks import folder_lock
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

SMALL = ("nf=4", "batch_size=8", "log_every=1", "sample_every=9999", "text_share=0.4")


def config(*sets):
    return resolve_config("dfgan", sets=[*SMALL, *sets])


class Heard(Silent):
    """Remembers what was said; `on_status` is called at every status."""

    def __init__(self, on_status=lambda: None):
        self.lines, self.steps, self.closed, self.on_status = [], [], 0, on_status

    def say(self, text):
        self.lines.append(text)

    def status(self, status):
        self.steps.append(status.step)
        self.on_status()

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("trainings", "cores", "gpu", "expected"),
    [
        (2, 2, False, 2),
        (2, 1, False, 1),
        (2, 64, False, 2),
        (7, 2, False, 1),
        (6, 4, False, 3),
        (12, 64, False, 4),
        (8, 8, True, 1),
        (0, 8, False, 1),
    ],
)
def test_trainings_at_once_divide_all_of_them_evenly(trainings, cores, gpu, expected):
    assert jobs_at_once(trainings, cores, gpu=gpu) == expected


def test_minutes_are_of_the_whole_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    asked = {"models": ["ldm", "dfgan"], "minutes": 3.0, "out": tmp_path}

    def planned(**more):
        plan = make_plan(BenchmarkRequest("shapes", **asked, **more))
        turns = [[entry.label for entry in turn] for turn in plan.turns()]
        return plan.jobs, [entry.config.settings.minutes for entry in plan.runs], turns, plan.told()

    assert planned() == (
        1, [3, 3], [["ldm"], ["dfgan"]],
        "plan: ldm, dfgan; to train: 2, 3 minutes each, 6 minutes in all",
    )  # fmt: skip
    assert planned(jobs=None) == (
        2, [6, 6], [["ldm", "dfgan"]],
        "plan: ldm, dfgan; to train: 2, 2 at once, 6 minutes each, 6 minutes in all",
    )  # fmt: skip
    assert planned(jobs=3, seeds=2)[:3] == (
        3, [9] * 4, [["ldm", "ldm-seed1", "dfgan"], ["dfgan-seed1"]],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"^--jobs 0: at least 1$"):
        planned(jobs=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert planned(jobs=None)[0] == 1
    with pytest.raises(UserError, match=r"^--jobs 2: the processes of torchrun share"):
        planned(jobs=2)


@pytest.mark.slow
def test_runs_trained_at_once_are_those_trained_alone(tmp_path):
    """One is new, one is resumed; a third fails, and the others go on."""
    whole, more = config("steps=5"), config("steps=5", "seed=1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, each in (("a", whole), ("b", more)):
        engine.train(each, tmp_path / "alone" / name, reporter=Silent())
    torch.set_num_threads(before)
    write_json(tmp_path / "taken" / "x.json", {})
    heard = {name: Heard() for name in "abc"}
    trainings = [
        Training("c", tmp_path / "taken", whole, begun=False),
        Training("a", tmp_path / "a", whole, begun=False),
        Training("b", tmp_path / "b", more, begun=False),
    ]
    with pytest.raises(UserError, match=r"^c: .*taken is there already: go on with") as error:
        train_together(trainings, 1, heard, "the command")
    assert error.value.exit_code == 2
    for name in "ab":
        alone, beside = Run(tmp_path / "alone" / name), Run(tmp_path / name)
        assert beside.complete
        assert beside.summary()["threads"] == 1
        expected = load_file(alone.model / "generator.safetensors")
        found = load_file(beside.model / "generator.safetensors")
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert heard[name].steps == [1, 2, 3, 4, 5]
        assert f"{name}: training dfgan (tiny) on shapes into {beside.path}" in heard[name].lines
        assert json.loads(beside.config_file.read_text())["command"] == "the command"
    assert [reporter.closed for reporter in heard.values()] == [1, 1, 1]
    assert any("c failed: " in line and "a, b go on" in line for line in heard["c"].lines)


@pytest.mark.slow
def test_a_training_that_is_killed_is_told_and_the_other_goes_on(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def remembered(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(side_by_side.subprocess, "Popen", remembered)
    heard = {"a": Heard(lambda: started[0].kill()), "b": Heard()}
    trainings = [
        Training("a", tmp_path / "a", config("steps=100000"), begun=False),
        Training("b", tmp_path / "b", config("steps=3"), begun=False),
    ]
    with pytest.raises(T2IError, match=r"^a: its training was killed by SIGKILL; the same command"):
        train_together(trainings, 1, heard, "")
    assert Run(tmp_path / "b").complete
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0]


PARENT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_side_by_side import Heard, config
from t2i.benchmarks.run.side_by_side import Training, train_together
from t2i.core.errors import T2IError

out, number = Path(sys.argv[1]), int(sys.argv[2])
heard = {name: Heard() for name in "ab"}
signalled = []

def when_both_train():
    if all(reporter.steps for reporter in heard.values()) and not signalled:
        signalled.append(number)
        os.kill(os.getpid(), number)

for reporter in heard.values():
    reporter.on_status = when_both_train
trainings = [Training(n, out / n, config("steps=100000", f"seed={i}"), begun=False)
             for i, n in enumerate("ab")]
try:
    train_together(trainings, 1, heard, "")
except T2IError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_a_stop_of_the_command_saves_all_trainings(tmp_path, number):
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path), str(int(number)), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    expected = -number if number == signal.SIGKILL else 128 + number
    assert done.returncode == expected, done.stderr
    told = {signal.SIGINT: "stopped, saved", signal.SIGTERM: "stopped by SIGTERM, saved"}
    assert told.get(number, "") in done.stdout
    for name in "ab":
        run = Run(tmp_path / name)
        saved = until_saved(run)
        engine.resume(run.path, steps=saved + 1, reporter=Silent())
        assert run.complete


def until_saved(run):
    """Wait until a run's process has let go of it, and return the step that it has saved."""
    with folder_lock(run.path).acquire(timeout=60):
        return max(run.steps_saved())
