"""Which checkpoints are kept: the newest, and the best by a logged loss."""

import json
import sys

import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Interrupted
from t2i.core.io.sealed import verify
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

LOSSES = (5.0, 3.0, 4.0, float("nan"), 3.5, 9.0)
SETS = (
    "keep=1",
    "keep_best=generator",
    "log_every=1",
    "checkpoint_every=1",
    "on_nan=skip",
    "ema_decay=0.5",
)
pytestmark = pytest.mark.usefixtures("toy")


class Words(Silent):
    def __init__(self):
        self.texts = []

    def say(self, text):
        self.texts.append(text)


@pytest.fixture
def told(toy, monkeypatch):
    """The toy's losses are those of LOSSES, whatever it does."""
    toy = sys.modules["t2i_toy"]
    step = toy.Trainer.step

    def telling(self, batch, engine):
        losses = step(self, batch, engine)
        return {**losses, "generator": torch.tensor(LOSSES[batch.noise.at])}

    monkeypatch.setattr(toy.Trainer, "step", telling)


def kept(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


@pytest.mark.usefixtures("told")
def test_the_best_checkpoint_stays_beside_the_newest_and_its_model_can_be_drawn_from(tmp_path):
    run = train(resolve_config("toy", sets=SETS), tmp_path / "run", reporter=Silent())
    assert kept(run) == ["step-2", "step-6"]  # a loss that is no number is not the best
    verify(run.best, "best")
    averages = load_tensors(run.checkpoints / "step-2" / "ema.safetensors", "x")
    best = load_tensors(run.best / "generator.safetensors", "x")
    assert all(torch.equal(best[name], averages[f"generator.{name}"]) for name in best)
    assert load(run.best, "cpu").sample(["a red image"])
    assert json.loads((run.checkpoints / "step-6" / "state.json").read_text())["best"] == [2, 3.0]


@pytest.mark.usefixtures("told")
def test_a_resumed_run_remembers_the_best(tmp_path, monkeypatch):
    from t2i.core.engine.stage import StageRun

    step = StageRun._step
    with monkeypatch.context() as patch:

        def killed(self, hosts):
            if self.context.state.step == 4:
                raise Interrupted("killed", 9)
            step(self, hosts)

        patch.setattr(StageRun, "_step", killed)
        with pytest.raises(Interrupted):
            train(resolve_config("toy", sets=SETS), tmp_path / "run", reporter=Silent())
    run = resume(tmp_path / "run", reporter=Silent())
    assert kept(run) == ["step-2", "step-6"]


def test_a_loss_that_no_stage_logs_is_said(tmp_path):
    words = Words()
    sets = ("two_stages=true", "keep_best=quality", "checkpoint_every=2")
    run = train(resolve_config("toy", sets=sets), tmp_path / "run", reporter=words)
    warnings = [text for text in words.texts if text.startswith("warning")]
    assert warnings == ["warning: keep_best=quality: stage second logs generator, critic only"]
    assert kept(Run(run.path)) == ["step-4", "step-6"]
    assert not run.best.exists()


def test_checkpoints_of_earlier_versions_go_on(tmp_path):
    from t2i.core.io.sealed import seal

    run = train(resolve_config("toy"), tmp_path / "run", reporter=Silent())
    run.summary_file.unlink()
    for folder in run.checkpoints.iterdir():
        state = json.loads((folder / "state.json").read_text())
        del state["best"]
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "manifest.json").unlink()
        seal(folder)
    assert resume(run.path, reporter=Silent()).complete
