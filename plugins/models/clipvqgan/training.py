"""Training of the parts of CLIP-guided VQGAN, of those that are not pretrained."""

from __future__ import annotations

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage, Trainer
from t2i.plugins.common.clip.contrast import ClipMatcher
from t2i.plugins.common.text.contrastive import MatchingTrainer
from t2i.plugins.common.tokens.training import tokenizer_stage
from t2i.plugins.models.clipvqgan.config import ClipVQGANConfig
from t2i.plugins.models.clipvqgan.networks import ClipVQGAN


def stages(config: ClipVQGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages of the parts that have no weights yet: tokenizer and CLIP.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages. Empty if all parts are pretrained: there is nothing to train.
    """

    def contrast(networks: Networks) -> Trainer:
        assert isinstance(networks.generator, ClipVQGAN)
        clip = networks.generator.clip.requires_grad_(config.clip.weights is None)
        return MatchingTrainer(
            networks.text_encoder, ClipMatcher(clip), lr=config.clip_lr, lr_text=config.text_lr
        )

    found = tokenizer_stage(config.tokenizer, config.batch_size)
    if config.clip.weights is None or text_encoder.trainable:
        found.append(Stage("clip", config.clip_share, contrast))
    return found
