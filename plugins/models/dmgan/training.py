"""Training of DM-GAN: DAMSM, then the GAN."""

from __future__ import annotations

from functools import partial

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.matching import MatchedTreeTrainer, matched_stages
from t2i.plugins.models.dmgan.config import DMGANConfig


class GANTrainer(MatchedTreeTrainer):
    """The GAN stage. The discriminators have spectral norm.

    Args:
        config: The model's settings.
        networks: The model's networks. Without the helper "image_encoder" L_DAMSM is left out.
    """

    def __init__(self, config: DMGANConfig, networks: Networks) -> None:
        width = networks.text_encoder.shape.sentence
        judges = [Discriminator(config, scale, width, "spectral") for scale in range(config.scales)]
        super().__init__(config, networks, judges)
        # Compiled, the discriminators' backward pass would recompute with the vectors of a later
        # forward pass, and PyTorch 2.14 fails to compile the memory of captions of any length.
        self.eager = ("network", *(critic.name for critic in self.critics))


def stages(config: DMGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: DAMSM, then the GAN.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages `damsm` and `gan`, or `gan` alone (see `matched_stages`).

    Raises:
        UserError: DAMSM is to be trained, and its image encoder is left out or has no file of
            weights.
    """
    return matched_stages(config, text_encoder, partial(GANTrainer, config), "model 'dmgan'")
