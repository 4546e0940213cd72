"""A run that starts from the weights of another one."""

import json
import sys

import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.files import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")


def first(tmp_path, *sets):
    config = resolve_config("toy", sets=("ema_decay=0.5", "width=12", *sets))
    return train(config, tmp_path / "first", reporter=Silent())


def begin(run, out, *sets, **options):
    config = resolve(Training(None, None, options, sets=sets, start=run.path), str)
    return train(config, out, reporter=Silent(), start=run.path)


def weights(run, step, name):
    return load_tensors(run.checkpoints / f"step-{step}" / f"modules.{name}.safetensors", "x")


def test_weights_settings_and_vocabulary_are_the_other_runs_and_its_critic_goes_on(tmp_path):
    run = first(tmp_path)
    other = begin(run, tmp_path / "other", "augment.flip=true", steps=3)
    assert (other.config().settings.width, other.config().settings.steps) == (12, 3)
    assert other.config().encoder == run.config().encoder
    ours, model = (
        weights(other, 0, "generator"),
        load_tensors(run.model / "generator.safetensors", "x"),
    )
    assert all(torch.equal(ours[name], model[name]) for name in model)
    ours, critic = weights(other, 0, "critic"), weights(run, 6, "critic")
    assert all(torch.equal(ours[name], critic[name]) for name in critic)
    assert json.loads(other.config_file.read_text())["from"] == str(run.path.resolve())
    assert other.summary()["steps"] == 3


def test_other_data_keeps_the_vocabulary(tmp_path, monkeypatch):
    run = first(tmp_path)
    monkeypatch.setattr(sys.modules["t2i_toy"].data, "colours", ("red", "purple", "blue"))
    monkeypatch.setattr(sys.modules["t2i_toy"].data, "fingerprint", lambda self: "other")
    other = begin(run, tmp_path / "other", steps=2)
    assert "purple" not in other.config().encoder.config.words


def test_of_two_stages_the_one_of_the_checkpoint_gets_its_own_networks(tmp_path, monkeypatch):
    run = first(tmp_path, "two_stages=true", "steps=9")
    critic, seen = weights(run, 9, "critic"), []
    toy = sys.modules["t2i_toy"].Trainer
    step = toy.step

    def watched(self, batch, engine):
        seen.append(torch.equal(self.modules["critic"].weight.detach(), critic["weight"]))
        return step(self, batch, engine)

    monkeypatch.setattr(toy, "step", watched)
    begin(run, tmp_path / "other", steps=6)
    assert seen == [False, False, True, False, False, False]


def test_a_start_that_was_killed_before_its_first_checkpoint_starts_from_the_weights_again(
    tmp_path,
):
    run = first(tmp_path)
    other = begin(run, tmp_path / "other", steps=3)
    before = weights(other, 3, "generator")
    for path in (other.summary_file, other.metrics_file):
        path.unlink()
    import shutil

    shutil.rmtree(other.checkpoints)
    shutil.rmtree(other.model)
    resume(other.path, reporter=Silent())
    after = weights(other, 3, "generator")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_started_from_says_why(tmp_path):
    run, out = first(tmp_path), tmp_path / "other"
    with pytest.raises(UserError, match=r"--from nowhere: no run: it has no config.json"):
        resolve(Training(None, start=Run(out).path.with_name("nowhere").relative_to(tmp_path)), str)
    with pytest.raises(UserError, match="a run of model 'toy', not 'ldm'"):
        resolve(Training("ldm", start=run.path), str)
    with pytest.raises(UserError, match="leave out --preset"):
        resolve(Training(None, "tiny", start=run.path), str)
    with pytest.raises(UserError, match=r"do not fit|does not fit|width"):
        begin(run, out, "width=4")
    with pytest.raises(UserError, match="leave out --encoder"):
        begin(run, out, "encoder.frozen=true")
    assert not out.exists()
    import shutil

    shutil.rmtree(run.model)
    with pytest.raises(UserError, match="it has no model yet"):
        begin(run, out)
