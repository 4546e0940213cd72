"""Speed runs: when a mark is reached, what is counted, what is kept, and what is refused."""

import json
import os
import signal
import sys

import pytest

from t2i.benchmarks.speedrun.judge import Judge
from t2i.core import engine
from t2i.core.engine.stage import StageRun
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.json_files import read_json
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config


def steps_of(entry):
    return [point.step for point in entry.points]


def losses(run):
    lines = map(json.loads, run.metrics_file.read_text().splitlines())
    return [(line["step"], line["losses"]) for line in lines]


def test_a_mark_is_reached_at_the_first_score_of_all_captions_that_has_it(speedrun, tmp_path):
    # 20 steps: 5 of "wait", then the level rises; scores after 2, 4, 6 steps of "rise".
    (entry,) = speedrun().entries
    assert steps_of(entry) == [7, 9, 11]
    assert [round(point.score, 6) for point in entry.points] == [2, 4, 6]
    ((first, at_4), (second, at_6)) = entry.marks()
    assert (first, at_4.step, at_4.steps) == (3, 9, {"wait": 5, "rise": 4})
    assert (second, at_6.step, at_6.interval) == (6, 11, (5, 7))
    assert at_6.operations == 5 * 10 + 6 * 100
    assert entry.machine_rate == pytest.approx(500)
    assert at_4.seconds < at_6.seconds
    # It stopped there, and the model is the one that was scored.
    assert not (tmp_path / "out" / "runs" / "ramp" / "summary.json").exists()
    model = load(tmp_path / "out" / "runs" / "ramp")
    assert float(model.generator.level.detach()) == pytest.approx(6)


def test_a_trial_comes_before_all_captions_are_scored(speedrun, monkeypatch):
    counts, images = [], Judge._images
    monkeypatch.setattr(
        Judge, "_images", lambda self, model, part: counts.append(part) or images(self, model, part)
    )
    (entry,) = speedrun(targets=(6.5,), every=1).entries
    # A trial of 5 (4 to 6) cannot be 6.5; one of 6 (5 to 7) may be, and is not, with all captions.
    assert [point.whole for point in entry.points] == [False] * 5 + [True, True]
    assert counts == [range(4)] * 5 + [range(4), range(4, 12)] * 2
    assert [(p.captions, p.step) for p in entry.points[-2:]] == [(12, 11), (12, 12)]
    assert entry.marks()[0][1].step == 12


def test_a_mark_that_is_missed_is_said_and_the_end_is_scored_in_full(speedrun, words):
    results = speedrun(targets=(15.5,), steps=18)
    (entry,) = results.entries
    ((_, reached),) = entry.marks()
    assert reached is None
    assert (entry.points[-1].step, entry.points[-1].whole) == (18, True)
    assert any(line.startswith("ramp: ") and "18 steps, " in line for line in words.lines)
    document = read_json(results.out / "speedrun.json", "results")
    assert document["entries"][0]["marks"] == [{"target": 15.5, "reached": None}]


def test_scores_change_nothing_that_is_trained(speedrun, tmp_path):
    sets = ("noisy=true", "ema_decay=0.9")
    (entry,) = speedrun(targets=(99,), sets=sets, every=1).entries
    assert len(entry.points) == 15
    own = {"data": {"name": "squares"}, "image_size": 8, "minutes": None, "steps": 20, "seed": 0}
    alone = engine.train(resolve_config("ramp", overrides=own, sets=sets), tmp_path / "alone")
    observed = type(alone)(tmp_path / "out" / "runs" / "ramp")
    assert losses(observed) == losses(alone)


@pytest.mark.parametrize("when", ["step", "score"])
def test_a_stopped_run_goes_on_to_the_same_scores(speedrun, tmp_path, monkeypatch, when):
    whole = speedrun(out=tmp_path / "whole", targets=(12,)).entries[0]
    owner, name = (StageRun, "_step") if when == "step" else (Judge, "_verdict")
    original, calls = getattr(owner, name), []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == (11 if when == "step" else 5):
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopped)
        with pytest.raises(Interrupted, match="ramp: stopped by SIGINT; the same command goes on"):
            speedrun(targets=(12,))
    (entry,) = speedrun(targets=(12,)).entries
    assert [(p.step, p.score, p.whole) for p in entry.points] == [
        (p.step, p.score, p.whole) for p in whole.points
    ]


class Killed(BaseException):
    """Stands in for a signal: nothing catches it."""


def test_a_killed_run_forgets_the_scores_of_steps_that_are_made_again(
    speedrun, tmp_path, monkeypatch
):
    whole = speedrun(out=tmp_path / "whole", targets=(12,)).entries[0]
    step, calls = StageRun._step, []

    def killed(self, hosts):
        calls.append(1)
        if len(calls) == 12:  # after the score at 11; the last checkpoint is of step 8
            raise Killed
        step(self, hosts)

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "_step", killed)
        with pytest.raises(Killed):
            speedrun(targets=(12,))
    kept = read_json(tmp_path / "out" / "entries" / "ramp.json", "entry")["entry"]["points"]
    assert [point["step"] for point in kept] == [7, 9, 11]
    (entry,) = speedrun(targets=(12,)).entries
    assert [(p.step, p.score) for p in entry.points] == [(p.step, p.score) for p in whole.points]


def test_the_same_command_again_trains_nothing(speedrun, words, monkeypatch):
    first = speedrun()
    monkeypatch.setattr(StageRun, "run", None)
    assert speedrun().entries == first.entries
    assert any(line.startswith("ramp: done before") for line in words.lines)


@pytest.mark.slow
def test_by_the_clock_the_scores_are_as_many_seconds_apart(speedrun):
    (entry,) = speedrun(steps=None, minutes=0.02, every=0.15, targets=(1e6,)).entries
    first, *_, last = entry.points
    assert 0.3 + 0.15 <= first.seconds < 0.3 + 0.3  # a quarter of 1.2 s is the other stage
    assert last.seconds >= 1.2
    assert last.whole


def test_settings_that_were_changed_are_named(speedrun):
    (entry,) = speedrun(sets=("lr=2", "warmup=0", "sampler.truncation=0.9")).entries
    assert entry.changed == {"lr": "2.0", "sampler.truncation": "0.9"}  # warmup is 0 already


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"benchmark": "ramp"}, "no benchmark is named 'ramp'; did you mean 'ramps'?"),
        ({"benchmark": "squares"}, "benchmark 'squares' has no mark for 'toy': give the score"),
        ({"benchmark": "pictures"}, "benchmark 'pictures' has no fixed captions"),
        ({"sets": ("data.name=toydata",)}, "--set data: the benchmark gives the training data"),
        ({"sets": ("seed=3",)}, "--set seed: give --seed"),
        ({"sets": ("lrr=3",)}, "lrr"),
        ({"models": ["rampp"]}, "no model is named 'rampp'; did you mean 'ramp'?"),
        ({"preset": "huge"}, "model 'ramp' has no preset 'huge'"),
        ({"minutes": 1}, "--minutes and --steps are two ways"),
        ({"every": 1.5}, "--every 1.5: with --steps it is a whole number of steps"),
        ({"samples": 1}, "--samples 1"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_trained(speedrun, tmp_path, fields, line):
    with pytest.raises(UserError) as error:
        speedrun(**fields)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "runs").exists()


def test_other_options_need_another_folder(speedrun):
    speedrun()
    for fields, named in [({"targets": (5,)}, "marks"), ({"samples": 6}, "captions")]:
        with pytest.raises(UserError, match=rf"made with other options \({named}\)"):
            speedrun(**fields)
    with pytest.raises(UserError, match=r"\(lr: 1.0, now 2.0\)"):
        speedrun(sets=("lr=2",))


def test_several_processes_are_refused(speedrun, monkeypatch):
    from t2i.benchmarks.speedrun import runner

    monkeypatch.setattr(runner, "Group", lambda: type("Two", (), {"size": 2})())
    with pytest.raises(UserError, match="one process"):
        speedrun()


@pytest.mark.parametrize(
    "change",
    [
        {"points": [1]}, {"points": "x"}, {"targets": [[1]]}, {"scoring_seconds": -1},
        {"evil": 1}, {"label": "other"}, {"points": []}, None,
    ],
)  # fmt: skip
def test_an_entry_that_somebody_sent_is_checked_first(speedrun, tmp_path, change, monkeypatch):
    speedrun()
    file = tmp_path / "out" / "entries" / "ramp.json"
    document = json.loads(file.read_text())
    entry = None if change is None else {**document["entry"], **change}
    file.write_text(json.dumps({**document, "entry": entry}))
    monkeypatch.setattr(StageRun, "run", None)
    with pytest.raises(UserError, match=r"entries/ramp\.json.*remove it and its run"):
        speedrun()


def test_a_model_with_nothing_to_train_is_scored_once(speedrun, words, monkeypatch, tmp_path):
    """All of its budget is spent in sampling, which the results count apart from training."""
    monkeypatch.setattr(sys.modules["t2i_ramp"], "stages", lambda config, encoder: [])
    (entry,) = speedrun().entries
    (point,) = entry.points
    assert (point.step, point.seconds, point.whole) == (0, 0.0, True)
    assert entry.scoring_seconds > 0
    assert any("nothing is trained" in line for line in words.lines)
    assert any("has nothing to train" in line for line in words.lines)
    assert speedrun().entries[0].points == [point]
