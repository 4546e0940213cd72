"""The autoencoder's loss: its terms, and the regularisation by a codebook."""

import pytest
import torch

from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch
from t2i.core.runs.configure import resolve_config
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.latent.autoencoder import Autoencoder, AutoencoderTrainer
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.tokens.perceptual import Perceptual

SIZES = {
    "patch": 2, "channels": (8,), "layers": 1, "latent_channels": 3, "groups": 4,
    "attention": False, "lr": 3e-3, "betas": (0.9, 0.99),
}  # fmt: skip
IMAGES = torch.rand(6, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
IMAGES = IMAGES.expand(-1, -1, 16, 16)


def trainer_of(**more):
    torch.manual_seed(0)
    config = AutoencoderConfig.of({**SIZES, **more}, "test")
    return AutoencoderTrainer(config, Autoencoder(config, 16))


def train(trainer, steps=1, progress=0.0):
    engine = LocalEngine(trainer, EngineConfig(), progress=progress)
    logs = []
    for step in range(steps):
        batch = Batch(IMAGES, ("",) * 6, ("",) * 6, StepNoise(0, step, 0, 6, 6), lambda c: None)
        engine.begin_step(step)
        logs.append({k: t.item() for k, t in trainer.step(batch, engine).items()})
    return logs


def test_by_default_there_are_the_error_and_the_kl_term_only():
    trainer = trainer_of()
    assert [*trainer.modules] == [*trainer.optimizers] == ["autoencoder"]
    (log,) = train(trainer)
    assert [*log] == ["reconstruction", "kl"]
    assert not [n for n in trainer.autoencoder.state_dict() if n.startswith("quantizer")]


@pytest.mark.parametrize("quantizer", [{"kind": "codebook", "legacy": True}, {"kind": "ema"}])
def test_a_codebook_regularises_and_belongs_to_the_decoder(quantizer):
    book = {"vocabulary": 8, "quantizer": {**quantizer, "restart": 0.05}}
    trainer = trainer_of(regularisation="vq", codebook=book)
    logs = train(trainer, 30)
    assert logs[-1]["reconstruction"] < logs[0]["reconstruction"]
    assert [*logs[0]] == ["reconstruction", "quantizer"]
    autoencoder = trainer.autoencoder.eval()
    with torch.no_grad():
        latents = autoencoder.encode(IMAGES)
        codes = autoencoder.quantizer.codes
        assert torch.cdist(latents.movedim(1, -1).reshape(-1, 3), codes).min(1).values.max() > 0
        nearest = autoencoder.quantizer(latents).vectors
        decoded = autoencoder.decode(latents)
        torch.testing.assert_close(decoded, autoencoder.reconstruct(nearest))
        # What is near the latents is decoded alike.
        torch.testing.assert_close(autoencoder.decode(nearest), decoded)


def test_perceptual_and_adversarial_terms_are_trained(monkeypatch):
    place = "t2i.plugins.common.tokens.losses.load_perceptual"
    monkeypatch.setattr(place, Perceptual)
    more = {
        "reconstruction": "l1", "perceptual": 0.1, "adversarial": 0.5, "adversarial_start": 0.5,
        "discriminator": {"channels": 4, "layers": 1},
    }  # fmt: skip
    trainer = trainer_of(losses=more)
    assert [*trainer.modules] == [*trainer.optimizers] == ["autoencoder", "discriminator"]
    (log,) = train(trainer)
    assert [*log] == ["reconstruction", "kl", "perceptual"]
    (log,) = train(trainer, progress=0.5)
    assert {"adversarial", "adaptive", "discriminator", "real", "fake"} < {*log}
    assert log["adaptive"] > 0


@pytest.mark.parametrize("preset", ["coco", "thesis"])
def test_at_the_papers_sizes_the_terms_are_on_if_it_trains_an_autoencoder(preset):
    config = resolve_config("ldm", preset=preset, sets=["autoencoder.weights=null"])
    losses = config.settings.autoencoder.losses
    assert losses.reconstruction == "l1"
    assert losses.perceptual > 0
    assert losses.adversarial > 0
