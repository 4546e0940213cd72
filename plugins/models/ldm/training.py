"""Latent diffusion in two stages: the autoencoder (thesis 2.32), then diffusion on its latents (thesis 2.31)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Adam

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Stage, Trainer
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.common.gan.conditioning import kl_loss
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LDMGenerator

MEASURED = 512  # pictures whose latents are measured


def stages(config: LDMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    share = config.autoencoder.share
    own = {"batch_size": config.autoencoder.batch_size or config.batch_size}
    first = Stage("autoencoder", share, lambda networks: AutoencoderTrainer(config, networks.generator), own)
    second = Stage("diffusion", 1 - share, partial(DenoisingTrainer, config))
    return [second] if config.autoencoder.weights else [first, second]


class AutoencoderTrainer(Trainer):
    """Stage 1: reconstruction (mean squared error) + kl_weight KL(q(z | x) || N(0, I))."""

    def __init__(self, config: LDMConfig, generator: Generator) -> None:
        assert isinstance(generator, LDMGenerator)
        self.config = config.autoencoder
        self.autoencoder = generator.autoencoder
        self.modules: dict[str, nn.Module] = {"autoencoder": self.autoencoder}
        self.optimizers = {
            "autoencoder": Adam(self.autoencoder.parameters(), self.config.lr, betas=self.config.betas, fused=True)
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        q = self.autoencoder.posterior(batch.images)
        z = q.mean + q.std * batch.noise.normal("z", 0, q.mean.shape[1:])
        reconstruction = (self.autoencoder.reconstruct(z) - batch.images).square().mean()
        kl = kl_loss(q.mean, q.logvar)
        engine.update("autoencoder", reconstruction + self.config.kl_weight * kl)
        return {"reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """Originals and reconstructions, in turn."""
        reconstructions = self.autoencoder.decode(self.autoencoder.encode(batch.images))
        return torch.stack([batch.images, reconstructions], 1).flatten(0, 1)

    @torch.no_grad()
    def finish(self, batches: Callable[[], Batch]) -> None:
        """Measures how to whiten the latents: diffusion wants unit variance (the paper's 0.18215)."""
        raw: list[Tensor] = []
        while sum(map(len, raw)) < MEASURED:
            raw.append(self.autoencoder.posterior(batches().images).mode())
        self.autoencoder.measure(torch.cat(raw))
