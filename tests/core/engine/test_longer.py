"""A longer budget: a run that has ended, or was interrupted, goes on to a new total."""

import json
import shutil
import sys

import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.json_files import read_json
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")


class Words(Silent):
    def __init__(self):
        self.texts = []

    def say(self, text):
        self.texts.append(text)


def go(out, *sets):
    return train(resolve_config("toy", sets=("log_every=3", *sets)), out, reporter=Silent())


def tensors(run, step):
    files = [*(run.checkpoints / f"step-{step}").glob("*.safetensors"), *run.model.glob("*.safe*")]
    return {f"{p.name}/{n}": t for p in files for n, t in load_tensors(p, "x").items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("more", [(), ("ema_decay=0",), ("accumulate=2",)])
def test_a_finished_run_goes_on_as_if_it_had_been_longer_from_the_beginning(tmp_path, more):
    whole = go(tmp_path / "whole", "steps=12", *more)
    longer = go(tmp_path / "longer", *more)
    assert longer.complete
    resume(longer.path, steps=12, reporter=Silent())
    assert longer.complete
    assert longer.config().settings.steps == 12
    assert_same(tensors(longer, 12), tensors(whole, 12))
    steps = [json.loads(line)["step"] for line in longer.metrics_file.read_text().splitlines()]
    assert steps == [3, 6, 9, 12]
    assert longer.summary()["stages"][-1]["steps"] == 12


def test_what_is_added_goes_to_the_last_stage(tmp_path):
    run = go(tmp_path / "run", "two_stages=true", "steps=9")
    assert [stage["steps"] for stage in run.summary()["stages"]] == [3, 6]
    resume(run.path, steps=12, reporter=Silent())
    assert [stage["steps"] for stage in run.summary()["stages"]] == [3, 9]
    assert run.summary()["images"] == 12 * 4


def test_an_interrupted_run_takes_a_longer_budget(tmp_path, monkeypatch):
    from t2i.core.engine.context import RunContext

    whole = go(tmp_path / "whole", "steps=8")
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "interrupted", lambda self: 2 if self.state.step == 4 else 0)
        with pytest.raises(Interrupted):
            go(tmp_path / "run", "steps=6")
    run = resume(tmp_path / "run", steps=8, reporter=Silent())
    assert_same(tensors(run, 8), tensors(whole, 8))


@pytest.mark.slow
def test_a_budget_in_minutes_takes_the_place_of_one_in_steps_and_back(tmp_path):
    run = go(tmp_path / "run")
    resume(run.path, minutes=0.01, reporter=Silent())
    assert (run.config().settings.minutes, run.config().settings.steps) == (0.01, 6)
    done = run.summary()["steps"]
    assert run.summary()["seconds"] >= 0.6
    assert done > 6
    resume(run.path, steps=done + 2, reporter=Silent())
    assert run.config().settings.minutes is None
    assert run.summary()["steps"] == done + 2


def test_a_total_that_is_spent_already_is_refused_and_the_run_stays_complete(tmp_path):
    run = go(tmp_path / "run")
    before = run.config_file.read_text()
    for budget, reason in [
        ({"steps": 6}, "6 steps already: the new budget is a total, name more than 6"),
        ({"minutes": 1e-9}, "already: the new budget is a total"),
        ({"steps": 0}, "steps"),
        ({"steps": 9, "minutes": 1}, "give one of them"),
    ]:
        with pytest.raises(UserError, match=reason):
            resume(run.path, reporter=Silent(), **budget)
    assert run.complete
    assert run.config_file.read_text() == before


def test_a_killed_longer_run_is_resumed_to_its_new_total(tmp_path, monkeypatch):
    from t2i.core.engine.context import RunContext

    run = go(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "interrupted", lambda self: 2 if self.state.step == 7 else 0)
        with pytest.raises(Interrupted):
            resume(run.path, steps=9, reporter=Silent())
    assert not run.complete
    assert resume(run.path, reporter=Silent()).summary()["steps"] == 9
    assert_same(tensors(run, 9), tensors(go(tmp_path / "whole", "steps=9"), 9))


def test_learning_rates_follow_the_new_length(tmp_path):
    """Of a cosine the second half of the new run is what the long run has there; the warm-up ends
    at the same step."""
    sets = ("lr_schedule=cosine", "warmup=2", "log_every=1")
    run = go(tmp_path / "run", *sets)
    resume(run.path, steps=12, reporter=Silent())
    whole = go(tmp_path / "whole", "steps=12", *sets)

    def rates(run):
        lines = map(json.loads, run.metrics_file.read_text().splitlines())
        return {line["step"]: line["learning_rates"]["generator"] for line in lines}

    ours, theirs = rates(run), rates(whole)
    assert [ours[step] for step in range(7, 13)] == pytest.approx(
        [theirs[step] for step in range(7, 13)]
    )
    assert ours[6] < theirs[6]


def test_a_run_without_a_checkpoint_to_go_on_from_says_what_to_do(tmp_path):
    run = go(tmp_path / "run")
    shutil.rmtree(run.checkpoints)
    with pytest.raises(UserError, match=r"no checkpoint that it can go on from; 't2i train --from"):
        resume(run.path, steps=9, reporter=Silent())


def test_a_complete_run_says_how_to_train_it_for_longer(tmp_path):
    run, words = go(tmp_path / "run"), Words()
    resume(run.path, reporter=words)
    assert words.texts == [
        f"{run.path} is complete: nothing to do; a larger --minutes or --steps trains it for longer"
    ]


def test_the_last_checkpoint_of_a_run_of_before_holds_no_optimizers_and_is_passed_over(tmp_path):
    run = go(tmp_path / "run", "checkpoint_every=4")
    last = run.checkpoints / "step-6"
    document = read_json(last / "state.json", "x") | {"begun": False, "stage": 1}
    (last / "state.json").write_text(json.dumps(document))
    from t2i.core.io.sealed import seal

    seal(last)
    words = Words()
    resume(run.path, steps=9, reporter=words)
    assert words.texts[0].startswith("resuming toy at step 4")
    assert run.summary()["steps"] == 9


@pytest.fixture
def failing(monkeypatch):
    """`failing(error, at)`: the toy's trainer raises an error at a step."""
    trainer = sys.modules["t2i_toy"].Trainer
    step = trainer.step

    def set_up(error, at):
        def fail(self, batch, engine):
            if batch.noise.at == at:
                raise error
            return step(self, batch, engine)

        monkeypatch.setattr(trainer, "step", fail)

    set_up.off = lambda: monkeypatch.setattr(trainer, "step", step)
    return set_up


@pytest.mark.parametrize("error", [UserError("no"), MemoryError(), KeyboardInterrupt(), OSError(5)])
@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_fails_leaves_nothing_behind_and_the_mended_command_runs(
    tmp_path, failing, error, there
):
    out = tmp_path / "new" / "run"
    if there:
        out.mkdir(parents=True)
    failing(error, 0)
    with pytest.raises((type(error), UserError)):
        go(out)
    trace = [out / "error.txt"] if isinstance(error, MemoryError) else []  # for whoever mends it
    assert list(tmp_path.rglob("*")) == ([out.parent, out, *trace] if there or trace else [])
    failing.off()
    assert go(out).complete


def test_a_start_that_fails_while_the_grids_are_prepared_leaves_nothing_behind(tmp_path, toy):
    """The configuration is written by then."""
    from t2i.core.engine import training

    real = training.open_dataset
    with pytest.MonkeyPatch.context() as patch:

        def broken(choice, split="train"):
            if split == "val":
                raise UserError("no val")
            return real(choice, split)

        patch.setattr(training, "open_dataset", broken)
        with pytest.raises(UserError, match="no val"):
            go(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_first_step_keeps_the_log_and_the_checkpoints(tmp_path, failing):
    failing(UserError("no"), 4)
    with pytest.raises(UserError):
        go(tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.metrics_file.exists()
    failing.off()
    assert resume(run.path, reporter=Silent()).complete


def test_a_failed_start_never_touches_a_folder_that_was_taken(tmp_path):
    run = go(tmp_path / "run")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UserError, match="is there already"):
        go(tmp_path / "run")
    assert sorted(run.path.rglob("*")) == before
