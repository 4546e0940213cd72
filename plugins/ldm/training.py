"""Latent diffusion in two stages: the autoencoder (thesis 2.32), then diffusion on its latents (thesis 2.31)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from t2i.core.generator import Generator
from t2i.core.schedule import Prediction, Schedule, add_noise, predicted_x_0, target
from t2i.core.text import TextEncoder
from t2i.core.trainer import Batch, Engine, Losses, Stage, Trainer
from t2i.plugins.ldm.config import LDMConfig
from t2i.plugins.ldm.networks import LDMGenerator

MEASURED = 512  # pictures whose latents are measured


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp logvar) || N(0, I)), averaged over all latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def diffusion_error(
    schedule: Schedule,
    prediction: Prediction,
    of: str,
    output: Tensor,
    z_0: Tensor,
    z_t: Tensor,
    t: Tensor,
    eps: Tensor,
) -> Tensor:
    """The error of a network's output at z_t: of what it predicts, or ("x_0") of the x_0 that this implies. For v the
    two differ by the factor sigma(t), since x_0 = alpha z_t - sigma v."""
    if of == "x_0":
        return predicted_x_0(schedule, prediction, z_t, t, output) - z_0
    return output - target(schedule, prediction, z_0, t, eps)


def stages(config: LDMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    share, batch_size = config.autoencoder.share, config.autoencoder.batch_size
    return [
        Stage("autoencoder", share, lambda generator, _: AutoencoderTrainer(config, generator), batch_size),
        Stage("diffusion", 1 - share, lambda generator, encoder: DiffusionTrainer(config, generator, encoder)),
    ]


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


class DiffusionTrainer(Trainer):
    """Stage 2: E ||target - net(z_t, t, tau(y))||^2, or that of x_0, with captions dropped at random. The autoencoder
    is frozen; a text encoder that can be trained is trained with the U-Net."""

    def __init__(self, config: LDMConfig, generator: Generator, text_encoder: TextEncoder) -> None:
        assert isinstance(generator, LDMGenerator)
        self.config, self.generator = config, generator
        self.modules: dict[str, nn.Module] = {"unet": generator.unet}
        groups: list[dict[str, Any]] = [{"params": list(generator.unet.parameters())}]
        if text_encoder.trainable:
            self.modules["text_encoder"] = text_encoder
            groups.append({"params": [p for p in text_encoder.parameters() if p.requires_grad], "lr": config.lr_text})
        self.optimizers = {"unet": Adam(groups, config.lr, betas=config.betas, fused=True)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        schedule, noise = self.generator.schedule, batch.noise
        with torch.no_grad():
            z_0 = self.generator.encode(batch.images)
        t = noise.integers("t", 0, self.config.timesteps)
        eps = noise.normal("eps", 0, z_0.shape[1:])
        keep = noise.uniform("caption_dropout", 0, ()) >= self.config.caption_dropout
        text = batch.text if bool(keep.all()) else batch.text.where(keep, batch.null())
        z_t = add_noise(schedule, z_0, t, eps)
        output = self.generator(z_t, t, text)
        config = self.config
        error = diffusion_error(schedule, config.prediction, config.error, output, z_0, z_t, t, eps)
        loss = error.square().mean()
        engine.update("unet", loss)
        return {"diffusion": loss}
