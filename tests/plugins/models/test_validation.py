"""Validation losses of the built-in models: repeatable, finite, and without a trace."""

import pytest
import torch

from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.loader import BatchShard, Views
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.visits import Visit
from t2i.core.kit.conformance.traces import validated
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
        named = {"text_encoder": made.text_encoder, **made.networks.helpers, **trainer.modules}
        (first, again), traces = validated(trainer, named, batch)
        assert traces == set(), stage.name
        assert first == again
        found[stage.name] = first
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
