"""Training of latent diffusion: the autoencoder, then diffusion on its latents.

Source: thesis, equations 2.32 and 2.31.
"""

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
    """Return the stages: `autoencoder`, which is left out if it has weights, then `diffusion`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `diffusion` trains it if it is trainable.

    Returns:
        The stages in order.
    """

    def autoencoding(networks: Networks) -> Trainer:
        assert isinstance(networks.generator, LDMGenerator)
        return AutoencoderTrainer(config.autoencoder, networks.generator.autoencoder)

    share = config.autoencoder.share
    part = "transformer" if config.network in ("sd3", "pixart") else "unet"
    own = {"batch_size": config.autoencoder.batch_size or config.batch_size}
    first = Stage("autoencoder", share, autoencoding, own)
    second = Stage("diffusion", 1 - share, partial(DenoisingTrainer, config, part=part))
    return [second] if config.autoencoder.weights else [first, second]
