"""Latent diffusion in two stages: the autoencoder (thesis 2.32), then diffusion on its latents (thesis 2.31)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.common.latent.autoencoder import AutoencoderTrainer
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LDMGenerator


def stages(config: LDMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    def autoencoding(generator: Generator, _: TextEncoder) -> Trainer:
        assert isinstance(generator, LDMGenerator)
        return AutoencoderTrainer(config.autoencoder, generator.autoencoder)

    share, batch_size = config.autoencoder.share, config.autoencoder.batch_size
    first = Stage("autoencoder", share, autoencoding, batch_size)
    second = Stage("diffusion", 1 - share, partial(DenoisingTrainer, config))
    return [second] if config.autoencoder.weights else [first, second]
