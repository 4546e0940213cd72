"""Validation losses of the built-in models: repeatable, finite, and without a trace."""

import pytest
import torch

from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.loader import BatchShard, Views
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.dataset import Visit
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.runs.configure import open_dataset, resolve_config

WITH = {
    "ddpm": ["diffusion"], "edm": ["diffusion"], "ldm": ["autoencoder", "diffusion"],
    "flowmatching": ["autoencoder", "flow", "reflow"], "ncsn": ["scores"], "scoresde": ["score"],
    "imagen": ["base", "upsampler"], "glide": ["base", "upsampler"],
    "dalle2": ["decoder", "upsampler", "prior"],
    "dalle": ["tokenizer", "transformer"], "parti": ["tokenizer", "transformer"],
    "vqdiffusion": ["tokenizer", "diffusion"], "vqgan": ["tokenizer", "prior"],
    "vae": ["vae"], "glow": ["flow"], "realnvp": ["flow"], "tarflow": ["flow"],
    "aligndraw": ["drawing"], "upsampler": ["upsampler"],
}  # fmt: skip
"""The stages with a validation loss."""

WITHOUT = ("gan", "dfgan", "galip")
MORE = {"flowmatching": ("reflow.share=0.2", "reflow.steps=2")}


def state(trainer):
    found = {
        f"{name}.{key}": value.clone()
        for name, module in trainer.modules.items()
        for key, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    return found | {"random": torch.get_rng_state()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses_of(model, sets):
    """Return the validation losses of a model's stages, each after one training step."""
    config = resolve_config(model, sets=sets)
    made = build(config)
    examples = open_dataset(config.data, "val")
    found = {}
    for stage in stages_of(config, made.text_encoder):
        trainer = stage.trainer(made.networks)
        settings = stage_settings(config, stage)
        prepared = PreparedStage(made, trainer, settings, torch.device("cpu"))
        maker = BatchMaker(prepared, settings)
        views = Views(examples, 0, settings.image_size, settings.augment)
        batch = maker.make(views[[Visit(0, row) for row in range(8)]], -1, BatchShard(8))
        prepared.train_mode()
        trainer.step(batch, LocalEngine(trainer, settings.with_(accumulate=1)))
        prepared.eval_mode()
        engine = LocalEngine(trainer, settings, progress=0.5, updates=False)
        before = state(trainer)
        with torch.no_grad():
            first, again = (trainer.validation(batch, engine) for _ in range(2))
        assert same(state(trainer), before), stage.name
        assert {n: float(v) for n, v in first.items()} == {n: float(v) for n, v in again.items()}
        found[stage.name] = {name: float(loss) for name, loss in first.items()}
    return found


@pytest.mark.parametrize("model", WITH)
def test_it_is_there_finite_the_same_each_time_and_changes_nothing(model, small):
    known = small(model) if model in small.models else ("data.val_length=8", "threads=1")
    found = losses_of(model, (*known, "batch_size=8", *MORE.get(model, ())))
    with_loss = [stage for stage, losses in found.items() if losses]
    assert with_loss == [stage for stage in WITH[model] if stage in found]
    assert with_loss
    assert all(abs(loss) < 1e6 for losses in found.values() for loss in losses.values())


@pytest.mark.parametrize("model", WITHOUT)
def test_gans_have_none(model, small):
    assert not any(losses_of(model, (*small(model), "batch_size=8")).values())
