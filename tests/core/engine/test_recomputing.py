"""Gradient checkpointing and 8-bit optimizers: what they change, and what they do not."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from t2i.core.engine.eight_bit import in_bits
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise, seeded
from t2i.core.interfaces.recomputing import recompute
from t2i.core.interfaces.trainer import Batch, Optimization
from t2i.core.models.building import build, stages_of
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

CPU = torch.device("cpu")
TRANSFORMER = ("transformer.width=32", "transformer.depth=2", "transformer.heads=2")
CASES = {
    "ldm": ("unet.dropout=0.3",),
    "flowmatching": TRANSFORMER,
    "vqdiffusion": (),
    "parti": (),
    "dalle": (),
    "tarflow": (),
}


def gradients(model, on, sets):
    """The gradients of a model's last stage, and the bytes that autograd keeps for them."""
    config = resolve_config(model, sets=(*sets, "threads=1"))
    captions = ("a red bird", "red")
    fit = registry().encoders[config.encoder.name].fit
    if fit:
        fitted = import_object(fit)(config.encoder.config, captions)
        config = replace(config, encoder=replace(config.encoder, config=fitted))
    seeded(0, "weights")
    made = build(config)
    settings = config.settings.with_(gradient_checkpointing=on)
    stage = stages_of(config, made.text_encoder)[-1]
    said = []
    prepared = PreparedStage(made, stage.trainer(made.networks), settings, CPU, said.append)
    assert said == []
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    found = {}

    class Engine(LocalEngine):
        def update(self, name, loss):
            parameters = self._optimizing[name].parameters
            found[name] = torch.autograd.grad(loss, parameters, allow_unused=True)

    size = settings.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(
        images, captions, captions, StepNoise(0, 0, 0, 2, 2, CPU), made.text_encoder.encode,
    )  # fmt: skip
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prepared.trainer.step(batch, Engine(prepared.trainer, settings))
    own = {p.untyped_storage().data_ptr() for p in made.networks.generator.parameters()}
    return found, sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("model", CASES)
def test_gradients_are_the_same_and_less_is_kept(model):
    plain, much = gradients(model, False, CASES[model])
    again, little = gradients(model, True, CASES[model])
    assert plain.keys() == again.keys()
    for name in plain:
        for a, b in zip(plain[name], again[name], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert little < 0.9 * much


def test_a_network_without_blocks_says_so():
    assert not recompute(torch.nn.Linear(2, 2), True)


class Fake8bit(torch.optim.Adam):
    """Stands for bitsandbytes' class: it nests what it keeps, and shares a table."""

    table = torch.arange(4.0)

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["qmap1"] = self.table

    def state_dict(self):
        document = super().state_dict()
        for index, state in document["state"].items():
            rest = {key: value for key, value in state.items() if key != "step"}
            document["state"][index] = {"step": state["step"], "nested": rest}
        return document


@pytest.fixture
def bitsandbytes(monkeypatch):
    package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    package.__spec__ = sys.__spec__
    optim.Adam8bit = Fake8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)


def test_adam_becomes_bitsandbytes_and_others_stay(bitsandbytes):
    weights = [torch.nn.Parameter(torch.zeros(2))]
    adam = torch.optim.Adam([{"params": weights, "lr": 0.5}], lr=1.0, betas=(0.1, 0.2), fused=True)
    other = in_bits(Optimization(adam, clip=2.0), 8)
    assert type(other.optimizer) is Fake8bit
    assert other.clip == 2.0
    group = other.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["params"]) == (0.5, (0.1, 0.2), weights)
    assert in_bits(Optimization(adam), 32).optimizer is adam
    sgd = Optimization(torch.optim.SGD(weights, 0.1))
    assert in_bits(sgd, 8) is sgd


@pytest.mark.usefixtures("toy", "bitsandbytes")
def test_an_optimizer_that_has_no_8_bits_is_named():
    config = resolve_config("toy", sets=("optimizer_bits=8",))
    model, said = build(config), []
    trainer = stages_of(config, model.text_encoder)[0].trainer(model.networks)
    trainer.optimizers = {"a": torch.optim.SGD(model.generator.parameters(), 0.1)}
    PreparedStage(model, trainer, config.settings, CPU, said.append)
    assert "optimizer_bits: a keeps 32: only Adam and AdamW have fewer" in said


@pytest.mark.usefixtures("toy", "bitsandbytes")
def test_a_run_with_8_bits_is_saved_and_resumed(tmp_path):
    from t2i.core.engine import resume, train
    from t2i.core.engine.reporting import Silent
    from t2i.core.io.tensors import load_tensors

    config = resolve_config("toy", sets=("optimizer_bits=8", "steps=4", "checkpoint_every=2"))
    run = train(config, tmp_path / "a", reporter=Silent())
    kept = load_tensors(run.checkpoints / "step-4" / "optimizers.safetensors", "x")
    assert any(name.endswith("/qmap1") for name in kept)
    resume(run.path, steps=6, reporter=Silent())


@pytest.mark.usefixtures("toy")
def test_without_bitsandbytes_8_bits_are_refused_before_training(tmp_path, monkeypatch):
    from t2i.core.engine import train
    from t2i.core.engine.reporting import Silent

    monkeypatch.setattr("t2i.core.engine.eight_bit.find_spec", lambda name: None)
    config = resolve_config("toy", sets=("optimizer_bits=8", "steps=4"))
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        train(config, tmp_path / "a", reporter=Silent())
    assert not (tmp_path / "a").exists()
