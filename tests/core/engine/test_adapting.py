"""Adapters on any model: what is trained and saved, and what is told."""

import shutil
import sys

import pytest
import torch
from torch.nn import functional as F

from t2i.core.engine import resume, train
from t2i.core.engine.automatic import Training, resolve
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import find, load
from t2i.core.models.lora_export import export_lora
from t2i.core.models.origin import find_origin
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")
SETS = ("lora.rank=2", "lora.alpha=1", "lora.targets=[linear]", "ema_decay=0.5")


class Lines(Silent):
    """Keeps the lines that are reported."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def first(tmp_path):
    config = resolve_config("toy", sets=("ema_decay=0.5",))
    return train(config, tmp_path / "first", reporter=Silent())


def adapted(run, out, *sets, reporter=None):
    origin = find_origin(run.path)
    config = resolve(Training(None, sets=(*SETS, *sets), start=origin), str)
    return train(config, out, reporter=reporter or Silent(), start=origin)


def test_only_adapters_and_the_critic_are_trained_and_saved_and_resuming_is_exact(tmp_path):
    run, lines = first(tmp_path), Lines()
    other = adapted(run, tmp_path / "other", reporter=lines)
    assert any("adapters of rank 2 in 2 layers" in line for line in lines.lines)
    assert not any("did not change" in line for line in lines.lines)
    saved = load_tensors(other.model / "generator.safetensors", "x")
    assert len(saved) == 4
    assert all(".lora_" in name for name in saved)
    assert load_tensors(other.model / "text_encoder.safetensors", "x") == {}
    critic = [load_tensors(other.checkpoints / f"step-{n}" / "modules.critic.safetensors", "x")
              for n in (3, 6)]  # fmt: skip
    assert not torch.equal(critic[0]["weight"], critic[1]["weight"])
    base, whole = load(run.path, "cpu"), load(other.path, "cpu")
    up, down = (saved[f"hidden.lora_{x}.default.weight"] for x in "BA")
    change = whole.generator.hidden.weight - base.generator.hidden.weight
    torch.testing.assert_close(change, up @ down / 2)  # alpha / r
    assert torch.equal(whole.text_encoder.table.weight, base.text_encoder.table.weight)
    shutil.copytree(other.path, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-6")
    (tmp_path / "killed" / "summary.json").unlink()
    again = resume(tmp_path / "killed", reporter=Silent())
    second = load_tensors(again.model / "generator.safetensors", "x")
    assert all(torch.equal(saved[name], second[name]) for name in saved)


def test_a_file_has_the_models_own_names_and_a_run_can_be_the_base_of_another(tmp_path):
    run = first(tmp_path)
    other = adapted(run, tmp_path / "other", "steps=2")
    file = export_lora(find(other.path), tmp_path / "a.safetensors")
    assert {"generator.hidden.lora_A.weight", "generator.out.lora_B.weight"} < set(
        load_tensors(file, "x")
    )
    with pytest.raises(UserError, match="kohya's layout has no names"):
        export_lora(find(other.path), tmp_path / "b.safetensors", "kohya")
    with pytest.raises(UserError, match="has no adapters"):
        export_lora(find(run.path), tmp_path / "b.safetensors")
    model, whole = load(run.path, "cpu"), load(other.path, "cpu")
    model.lora(file)
    torch.testing.assert_close(model.generator.out.weight, whole.generator.out.weight)
    third = adapted(other, tmp_path / "third", "steps=1", "lr=0.0")
    assert torch.equal(load(third.path, "cpu").generator.out.weight, whole.generator.out.weight)


def test_one_stage_is_trained(tmp_path):
    run = first(tmp_path)
    other = adapted(run, tmp_path / "a", "two_stages=true", "steps=2")
    assert [stage["name"] for stage in other.summary()["stages"]] == ["second"]
    other = adapted(run, tmp_path / "b", "two_stages=true", "steps=2", "lora.stage=first")
    assert [stage["name"] for stage in other.summary()["stages"]] == ["first"]


def test_adapters_that_no_gradient_reaches_are_reported(tmp_path, monkeypatch):
    run, lines = first(tmp_path), Lines()

    def forward(self, noise, text):  # reads the weights past the layer
        x = torch.tanh(self.hidden(torch.cat([noise, text.sentence], 1)))
        x = F.linear(x, self.out.weight, self.out.bias)
        return torch.tanh(x).view(-1, 3, self.image_size, self.image_size)

    monkeypatch.setattr(sys.modules["t2i_toy"].generator, "forward", forward)
    adapted(run, tmp_path / "other", "steps=2", reporter=lines)
    [line] = [line for line in lines.lines if "did not change" in line]
    assert "1 of 2 adapters" in line
    assert "out" in line


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    run = first(tmp_path)
    with pytest.raises(UserError, match="adapters change a whole model"):
        adapted(run, tmp_path / "a", "width=12")
    with pytest.raises(UserError, match="it has no targets"):
        adapted(run, tmp_path / "b", "lora.text_encoder=true")
    with pytest.raises(UserError, match=r"lora.targets = attention"):
        adapted(run, tmp_path / "c", "lora.targets=[attention]")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"t2i-zoo\[lora\]"):
        adapted(run, tmp_path / "d")
