"""Watching a trainer changes nothing of what it does."""

import random
import sys
from dataclasses import replace

import pytest
import torch

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.io.tensors import load_tensors
from t2i.core.kit.conformance.watch import BATCH, STEPS, Watcher
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def parts():
    return sys.modules["t2i_toy"]


def encoding(parts, seen):
    """The toy's stages with a trainer whose images may be encoded beforehand, as their means."""
    plain = parts.stages

    def made(networks):
        (stage,) = plain(resolve_config("toy").settings, networks.text_encoder)
        trainer = stage.trainer(networks)
        trainer.encode = lambda images: images.mean((2, 3))

        def step(batch, engine):
            encoded = trainer.encode(batch.images) if batch.encoded is None else batch.encoded
            seen.append(batch.encoded is not None)
            loss = (trainer.generator.out.bias.mean() - encoded.mean()).square()
            engine.update("generator", loss)
            return {"generator": loss}

        trainer.step = step
        return trainer

    return lambda config, encoder: [
        replace(stage, trainer=made) for stage in plain(config, encoder)
    ]


def test_what_may_be_encoded_beforehand_still_is(tmp_path, parts):
    seen = []
    parts.stages = encoding(parts, seen)
    config = resolve_config("toy", sets=["cache_views=1", "encoder.frozen=true"])
    watched = train(config, tmp_path / "watched", reporter=Silent(), wrap=Watcher().wrap)
    assert seen == [True] * 6
    plain = train(config, tmp_path / "plain", reporter=Silent())
    ours, theirs = (
        load_tensors(run.model / "generator.safetensors", "x") for run in (watched, plain)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_checks_own_intervals_hold_in_every_stage(parts):
    (plain,) = parts.stages(resolve_config("toy").settings, None)
    own = {"batch_size": 48, "checkpoint_every": 7, "warmup": 900, "grad_clip": 2.0}
    wrapped = Watcher().wrap(replace(plain, share=7.0, settings=own))
    assert (wrapped.share, wrapped.settings) == (1.0, {"batch_size": BATCH, "grad_clip": 2.0})


def test_every_trace_of_a_validation_is_seen(tmp_path, parts, monkeypatch):
    def validation(self, batch, engine):
        out = self.generator.out
        out.train()
        out.weight.requires_grad_(False)
        out.bias.add_(1)
        out.bias.grad = torch.ones_like(out.bias)
        next(iter(self.optimizers["generator"].state.values()))["step"].add_(1)
        random.random()
        return {}

    monkeypatch.setattr(parts.Trainer, "validation", validation)
    watcher = Watcher()
    config = resolve_config("toy", sets=[f"steps={STEPS}", "encoder.frozen=true"])
    train(config, tmp_path / "run", reporter=Silent(), wrap=watcher.wrap)
    (seen,) = watcher.seen
    assert seen.traces == {
        "the mode of generator.out", "requires_grad of generator.out.weight", "generator.out.bias",
        "the gradient of generator.out.bias", "the optimizer generator, 0.step",
        "the random numbers of python",
    }  # fmt: skip
