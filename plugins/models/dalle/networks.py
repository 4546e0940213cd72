"""DALL-E's transformer over text and image tokens.

Source: Ramesh et al. 2021 (arXiv:2102.12092), section 2.2 and appendix B.1; the names of the
weights are those of kakaobrain/minDALL-E.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.causal.generator import TokenGenerator
from t2i.plugins.common.causal.transformer import Prefix, TokenTransformer
from t2i.plugins.common.text.tokens import TOKENS
from t2i.plugins.common.tokens.tokenizer import tokenizer_of
from t2i.plugins.models.dalle.config import DalleConfig


class DalleTransformer(TokenTransformer):
    """One causal transformer over the tokens of the text, then those of the image.

    Args:
        config: The model's settings.
        vocabulary: Number K of different image tokens.
        side: Height and width of an image in tokens.
        text: Widths of the text features.
    """

    def __init__(self, config: DalleConfig, vocabulary: int, side: int, text: TextShape) -> None:
        sizes = config.transformer
        super().__init__(sizes, vocabulary, side)
        D = sizes.width
        self.tok_emb_img = nn.Embedding(vocabulary, D)
        self.pos_emb_img: nn.Embedding | None = None
        self.pos_emb_row: nn.Embedding | None = None
        self.pos_emb_column: nn.Embedding | None = None
        if config.positions == "learned":
            self.pos_emb_img = nn.Embedding(self.length, D)
        else:
            self.pos_emb_row, self.pos_emb_column = nn.Embedding(side, D), nn.Embedding(side, D)
        self.text_length, self.text_vocabulary = config.text_length, config.text_vocabulary
        self.learned = config.padding == "learned"
        self.head_img = nn.Linear(D, vocabulary, bias=False)
        self.words: nn.Linear | None = None
        self.head_txt: nn.Linear | None = None
        if config.reads == "features":
            self.words, self.start = nn.Linear(text.words, D), nn.Parameter(torch.zeros(1, 1, D))
        else:
            kinds = config.text_vocabulary + self.learned * config.text_length
            self.tok_emb_txt = nn.Embedding(kinds, D)
            self.pos_emb_txt = nn.Embedding(config.text_length, D)
            self.head_txt = nn.Linear(D, kinds, bias=False)
            text = TextShape(D, D)  # of the map of the words, which is made of these vectors
        self.begin_weights(sizes, config.text, text)

    def text_tokens(self, text: TextFeatures) -> Tensor:
        """Return the tokens of captions as the transformer reads them.

        Args:
            text: Features of B captions, from the text encoder `bpe`.

        Returns:
            Tokens, int64 (B, text_length), with the learned tokens of padding after the others.

        Raises:
            UserError: The text encoder has no tokens, or others than the settings say.
        """
        if TOKENS not in text.extras:
            raise UserError(
                "dalle: this text encoder has no tokens: take --encoder bpe, or set reads=features"
            )
        tokens = text.extras[TOKENS]
        if tokens.shape[1] != self.text_length:
            raise UserError(
                f"dalle: captions have {tokens.shape[1]} tokens, text_length is "
                f"{self.text_length}: set encoder.length={self.text_length}"
            )
        if not self.learned:
            return tokens
        places = torch.arange(self.text_length, device=tokens.device)
        return torch.where(text.mask, tokens, self.text_vocabulary + places)

    def condition(self, text: TextFeatures) -> TextFeatures:
        if self.words is None:
            read = self.text_tokens(text)
            if int(text.extras[TOKENS].max()) >= self.text_vocabulary:
                raise UserError(
                    f"dalle: the text encoder has more than the {self.text_vocabulary} tokens of "
                    "text_vocabulary: set both to the same number (encoder.vocabulary_size)"
                )
            if self.text_map is not None:
                vectors = self.text_vectors(read)
                mapped = self.text_map.mapped(
                    replace(
                        text, sentence=vectors.mean(1), words=vectors,
                        mask=torch.ones_like(text.mask),
                    )
                )  # fmt: skip
                text = replace(text, extras=mapped.extras)
            return text
        return super().condition(text)

    def text_vectors(self, read: Tensor) -> Tensor:
        """Compute the vectors of text tokens.

        Args:
            read: Tokens, int64 (B, text_length), from `text_tokens`.

        Returns:
            Vectors, (B, text_length, width).
        """
        vectors: Tensor = self.tok_emb_txt(read) + self.pos_emb_txt.weight
        return vectors

    def prefix(self, text: TextFeatures) -> Prefix:
        if self.words is None:
            return Prefix(self.text_vectors(self.text_tokens(text)))
        start = self.start.expand(len(text), -1, -1)
        x = torch.cat([self.words(text.words), start], 1)
        return Prefix(x, F.pad(text.mask, (0, 1), value=True))

    def embedded(self, tokens: Tensor, first: int) -> Tensor:
        embedded: Tensor = self.tok_emb_img(tokens)
        last = first + tokens.shape[1]
        if self.pos_emb_img is not None:
            return embedded + self.pos_emb_img.weight[first:last]
        assert self.pos_emb_row is not None
        assert self.pos_emb_column is not None
        places = torch.arange(first, last, device=tokens.device)
        rows: Tensor = self.pos_emb_row(places // self.side)
        columns: Tensor = self.pos_emb_column(places % self.side)
        return embedded + rows + columns

    def logits(self, h: Tensor) -> Tensor:
        logits: Tensor = self.head_img(h)
        return logits

    def both(self, tokens: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Predict the tokens of image and text, given those before them.

        Args:
            tokens: Tokens of the image, int64 (B, N).
            text: Features of B captions, from `condition`.

        Returns:
            Logits of the image tokens, (B, N, K), and of the text tokens but the first.
        """
        assert self.head_txt is not None
        h, p = self.hidden(tokens, text)
        return self.logits(h[:, p - 1 :]), self.head_txt(h[:, : p - 1])


def build(config: DalleConfig, text: TextShape, assets: Path | None = None) -> TokenGenerator:
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
    network = DalleTransformer(config, tokenizer.vocabulary, tokenizer.side, text)
    return TokenGenerator(tokenizer, network)
