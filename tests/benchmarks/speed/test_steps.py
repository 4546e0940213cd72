"""The step timer: it takes whole training steps, whatever the model, and takes turns fairly."""

import pytest

from t2i.benchmarks.speed.steps import in_turns, main
from t2i.core.engine.trial import training_step
from t2i.core.errors import UserError
from t2i.core.runs.configure import resolve_config

SMALL = ["nf=2", "z_dim=4", "image_size=32", "encoder.width=8"]


def optimizers_of(monkeypatch):
    """Records each optimizer's steps."""
    from t2i.core.engine import trial

    taken = []

    class Recorder(trial.LocalEngine):
        def update(self, name, loss):
            super().update(name, loss)
            taken.append(name)

    monkeypatch.setattr(trial, "LocalEngine", Recorder)
    return taken


def test_a_step_is_a_whole_one_of_the_stage_that_is_named(monkeypatch):
    taken = optimizers_of(monkeypatch)
    config = resolve_config("dfgan", sets=SMALL)
    training_step(config, batch_size=3)()
    assert taken == ["discriminator", "generator"]
    taken.clear()
    step = training_step(config, stage="text", batch_size=3)
    step()
    step()
    assert len(taken) == 2
    with pytest.raises(UserError, match=r"model 'dfgan' has no stage 'gam'; did you mean 'gan'\?"):
        training_step(config, stage="gam")


def test_turns_begin_with_each_in_turn_and_ratios_are_to_the_first(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr("t2i.benchmarks.speed.steps.time.perf_counter", lambda: clock[0])

    def taking(name, seconds):
        def step():
            calls.append(name)
            clock[0] += seconds

        return step

    turns = in_turns({"a": taking("a", 2.0), "b": taking("b", 3.0)}, rounds=3, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert turns.seconds == {"a": 2.0, "b": 3.0}
    assert turns.ratios == {"a": 1.0, "b": 1.5}


def test_the_command_needs_no_data_set_that_a_preset_names(capsys):
    sets = [
        word
        for setting in ("nf=1", "image_size=16", "encoder.width=8")
        for word in ("--set", setting)
    ]
    main(
        [
            "--model",
            "dfgan",
            "--preset",
            "cub",
            *sets,
            "--stage",
            "gan",
            "--batch-size",
            "2",
            "--steps",
            "1",
        ]
    )
    assert "s a step (median of 1; cpu, " in capsys.readouterr().out
