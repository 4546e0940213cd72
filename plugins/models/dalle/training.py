"""Training of DALL-E: the dVAE, then the transformer.

Source: Ramesh et al. 2021, section 2 and appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Losses, Networks, Stage, Trainer
from t2i.plugins.common.causal.generator import TokenTrainer, cross_entropy
from t2i.plugins.common.tokens.training import tokenizer_stage
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import DalleTransformer


class DalleTrainer(TokenTrainer):
    """Minimises w CE(text) + (1 - w) CE(image), w being 1/8 in the paper.

    Dropped captions do not count as text.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: DalleConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.weight = config.text_weight if config.reads == "tokens" else 0.0

    def errors(
        self, tokens: Tensor, read: Tensor, kept: Tensor | None, text: TextFeatures
    ) -> tuple[Tensor, Losses]:
        if not self.weight:
            return super().errors(tokens, read, kept, text)
        assert isinstance(self.network, DalleTransformer)
        image_logits, text_logits = self.network.both(read, text)
        image = cross_entropy(image_logits, tokens)
        caption = text_error(text_logits, self.network.text_tokens(text)[:, 1:], kept)
        return (1 - self.weight) * image + self.weight * caption, {"tokens": image, "text": caption}


def text_error(logits: Tensor, tokens: Tensor, kept: Tensor | None) -> Tensor:
    """Compute the mean of -log p of text tokens, padding included.

    Args:
        logits: Logits, (B, L, V).
        tokens: Tokens, int64 (B, L).
        kept: Which captions count, bool (B,). None: all.

    Returns:
        The mean, a scalar, in nats. 0 if no caption counts.
    """
    if kept is None:
        return cross_entropy(logits, tokens)
    each = F.cross_entropy(logits.mT, tokens, reduction="none").mean(1)
    return torch.where(kept, each, 0).sum() / kept.sum().clamp(min=1)


def stages(config: DalleConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `tokenizer`, which is left out if it has weights, then `transformer`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The second stage trains it if it is trainable.

    Returns:
        The stages in order.
    """

    def trainer(networks: Networks) -> Trainer:
        return DalleTrainer(config, networks)

    first = tokenizer_stage(config.tokenizer, config.batch_size)
    share = 1 - config.tokenizer.share if first else 1.0
    return [*first, Stage("transformer", share, trainer)]
