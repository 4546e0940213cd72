"""A run that starts from the weights of another one."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file

from t2i.core.engine import resume, train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config

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
    shutil.rmtree(other.checkpoints)
    shutil.rmtree(other.model)
    resume(other.path, reporter=Silent())
    after = weights(other, 3, "generator")
    assert all(torch.equal(before[name], after[name]) for name in before)


def told(run):
    return json.loads(run.from_file.read_text())


def test_other_settings_take_what_fits_and_say_what_does_not(tmp_path, capsys):
    run = first(tmp_path)
    config = resolve(Training(None, None, {"steps": 2}, sets=["width=4"], start=run.path), str)
    other = train(config, tmp_path / "other", start=run.path)
    said = capsys.readouterr().err
    assert f"from {run.path}: fits: " in said
    assert "new: " in said
    assert "of them for their shape, such as generator." in said
    shapes = told(other)["other_shape"]
    assert shapes
    assert all(pair["theirs"] != pair["ours"] for pair in shapes.values())
    assert set(shapes) <= set(told(other)["new"])
    assert set(told(other)["fits"]).isdisjoint(told(other)["new"])


def test_a_preset_beside_from_brings_its_settings_and_keeps_the_vocabulary(tmp_path):
    run = first(tmp_path)
    config = resolve(Training(None, "tiny", start=run.path), str)
    assert config.settings.width != 12
    assert config.encoder == run.config().encoder


def test_a_checkpoint_of_an_unfinished_run_is_started_from(tmp_path):
    run = first(tmp_path)
    shutil.rmtree(run.model)
    other = begin(run, tmp_path / "other", steps=2)
    averages = load_tensors(run.checkpoints / "step-6" / "ema.safetensors", "x")
    ours = weights(other, 0, "generator")
    for name, average in averages.items():
        part, _, own = name.partition(".")
        if part == "generator":
            assert torch.equal(ours[own], average)


def test_a_file_of_tensors_is_placed_by_its_names(tmp_path):
    run = first(tmp_path)
    theirs = load_tensors(run.model / "generator.safetensors", "x")
    save_file({**theirs, "unknown": torch.zeros(2)}, tmp_path / "w.safetensors")
    wanted = Training("toy", sets=["width=12", "steps=2"], start=tmp_path / "w.safetensors")
    other = train(resolve(wanted, str), tmp_path / "other", reporter=Silent(), start=wanted.start)
    ours = weights(other, 0, "generator")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert told(other)["left_out"] == ["unknown"]
    with pytest.raises(UserError, match="name it with --model"):
        resolve(Training(None, start=wanted.start), str)


def test_what_cannot_be_started_from_says_why(tmp_path):
    run, out = first(tmp_path), tmp_path / "other"
    with pytest.raises(UserError, match=r"--from .*nowhere: no such file or directory"):
        resolve(Training(None, start=tmp_path / "nowhere"), str)
    save_file({"strange": torch.zeros(2)}, tmp_path / "x.safetensors")
    config = resolve_config("toy", overrides={"steps": 2})
    with pytest.raises(UserError, match=r"no tensor fits model 'toy'.*new: .*left out: 1"):
        train(config, out, reporter=Silent(), start=tmp_path / "x.safetensors")
    damaged = run.model / "generator.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"generator\.safetensors"):
        begin(run, out)
    assert not out.exists()
