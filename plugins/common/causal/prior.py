"""The prior of `vqvae` and `vqgan`: taming's transformer with captions in front.

Source: Esser et al. 2021 (arXiv:2012.09841), section 3.2; the weights are those of
CompVis/taming-transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Networks, Stage, Trainer
from t2i.plugins.common.causal.generator import TokenGenerator, TokenTrainer, of_generator
from t2i.plugins.common.causal.prior_config import PriorConfig
from t2i.plugins.common.causal.transformer import Prefix, TokenTransformer
from t2i.plugins.common.tokens.tokenizer import tokenizer_of
from t2i.plugins.common.tokens.training import tokenizer_stage

START = 0
"""Token that stands before those of the image, as in taming's unconditional models."""


class Prior(TokenTransformer):
    """Words, a start token, and the tokens of the image. One table embeds all tokens.

    The words have no positions here: the text encoder gave them theirs.

    Args:
        config: The model's settings.
        vocabulary: Number K of different tokens.
        side: Height and width of an image in tokens.
        text: Widths of the text features.

    Raises:
        UserError: There are fewer positions than tokens.
    """

    def __init__(self, config: PriorConfig, vocabulary: int, side: int, text: TextShape) -> None:
        sizes = config.transformer
        super().__init__(sizes, vocabulary, side)
        block = config.block or self.length
        if block < self.length:
            raise UserError(f"block ({block}): an image has {self.length} tokens")
        self.tok_emb = nn.Embedding(vocabulary, sizes.width)
        self.pos_emb = nn.Parameter(torch.zeros(1, block, sizes.width))
        self.words = nn.Linear(text.words, sizes.width) if config.words else None
        self.head = nn.Linear(sizes.width, vocabulary, bias=False)
        self.begin_weights(sizes, config.text, text)

    def prefix(self, text: TextFeatures) -> Prefix:
        start = self.tok_emb.weight[START] + self.pos_emb[0, 0]
        start = start.expand(len(text), 1, -1)
        if self.words is None:
            return Prefix(start)
        x = torch.cat([self.words(text.words), start], 1)
        return Prefix(x, nn.functional.pad(text.mask, (0, 1), value=True))

    def embedded(self, tokens: Tensor, first: int) -> Tensor:
        at = first + 1
        embedded: Tensor = self.tok_emb(tokens) + self.pos_emb[:, at : at + tokens.shape[1]]
        return embedded

    def logits(self, h: Tensor) -> Tensor:
        logits: Tensor = self.head(h)
        return logits


def build(config: PriorConfig, text: TextShape, assets: Path | None = None) -> TokenGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the tokenizer. None: it is built or loaded as
            the settings say.

    Returns:
        The generator.
    """
    tokenizer = tokenizer_of(config.tokenizer, config.image_size, assets)
    return TokenGenerator(tokenizer, Prior(config, tokenizer.vocabulary, tokenizer.side, text))


def stages(config: PriorConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `tokenizer`, which is left out if it has weights, then `prior`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `prior` trains it if it is trainable.

    Returns:
        The stages in order.
    """

    def trainer(networks: Networks) -> Trainer:
        return TokenTrainer(config, networks, config.pkeep)

    first = tokenizer_stage(config.tokenizer, config.batch_size, of_generator)
    return [*first, Stage("prior", 1 - config.tokenizer.share if first else 1.0, trainer)]
