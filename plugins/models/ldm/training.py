"""Latent diffusion in two stages: the autoencoder (thesis 2.32), then diffusion on its latents (thesis 2.31)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage, Trainer
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.common.latent.autoencoder import AutoencoderTrainer
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LDMGenerator


def stages(config: LDMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    def autoencoding(networks: Networks) -> Trainer:
        assert isinstance(networks.generator, LDMGenerator)
        return AutoencoderTrainer(config.autoencoder, networks.generator.autoencoder)

    share = config.autoencoder.share
    own = {"batch_size": config.autoencoder.batch_size or config.batch_size}
    first = Stage("autoencoder", share, autoencoding, own)
    second = Stage("diffusion", 1 - share, partial(DenoisingTrainer, config))
    return [second] if config.autoencoder.weights else [first, second]
