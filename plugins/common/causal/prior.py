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
from t2i.plugins.common.causal.generator import TokenGenerator, TokenTrainer
from t2i.plugins.common.causal.prior_config import PriorConfig
from t2i.plugins.common.causal.transformer import Prefix, TokenTransformer
from t2i.plugins.common.tokens.tokenizer import tokenizer_of
from t2i.plugins.common.tokens.training import tokenizer_stage

START = 0
"""Token that stands before those of the image, as in taming's unconditional models."""


def coordinates(vocabulary: int, side: int, pixels: int) -> list[int]:
    """Return taming's tokens of the places of a whole image, which stand before those of the image.

    A pixel's number, from 0 on row by row, is divided by the number of pixels. A place has the mean
    of its pixels, times K, rounded.

    Args:
        vocabulary: Number K of different tokens.
        side: Height and width of the image in tokens.
        pixels: Height and width of a place in pixels.

    Returns:
        The tokens, row by row.
    """
    middle, size = (pixels - 1) / 2, side * pixels
    return [
        round(vocabulary * ((pixels * row + middle) * size + pixels * column + middle) / size**2)
        for row in range(side)
        for column in range(side)
    ]


class Prior(TokenTransformer):
    """Words, a start token or coordinates, and the tokens of the image, all of one table.

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
        pixels = config.image_size // side
        self.first = coordinates(vocabulary, side, pixels) if config.coordinates else [START]
        if max(self.first) >= vocabulary:
            raise UserError(f"coordinates: a vocabulary of {vocabulary} is too small for them")
        needed = len(self.first) + self.length - 1  # the last token is not read
        block = config.block or needed
        if block < needed:
            raise UserError(f"block ({block}): this transformer reads {needed} tokens")
        self.tok_emb = nn.Embedding(vocabulary, sizes.width)
        self.pos_emb = nn.Parameter(torch.zeros(1, block, sizes.width))
        self.words = nn.Linear(text.words, sizes.width) if config.words else None
        self.head = nn.Linear(sizes.width, vocabulary, bias=False)
        self.begin_weights(sizes, config.text, text)

    def prefix(self, text: TextFeatures) -> Prefix:
        tokens = torch.tensor(self.first, device=self.pos_emb.device)
        first = self.tok_emb(tokens) + self.pos_emb[:, : len(tokens)]
        first = first.expand(len(text), -1, -1)
        if self.words is None:
            return Prefix(first)
        x = torch.cat([self.words(text.words), first], 1)
        return Prefix(x, nn.functional.pad(text.mask, (0, len(tokens)), value=True))

    def embedded(self, tokens: Tensor, first: int) -> Tensor:
        at = first + len(self.first)
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

    first = tokenizer_stage(config.tokenizer, config.batch_size)
    return [*first, Stage("prior", 1 - config.tokenizer.share if first else 1.0, trainer)]
