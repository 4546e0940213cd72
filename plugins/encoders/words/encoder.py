"""The text encoder `words`: a pre-norm transformer over word embeddings (Vaswani et al. 2017).

A convolution may mix each embedding with its neighbours first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.plugins.encoders.words.config import SPECIAL, WordsConfig, split, split_all
from t2i.plugins.encoders.words.weights import described, load_pretrained

PAD, START, UNKNOWN = range(len(SPECIAL))


class WordsEncoder(TextEncoder):
    """A small trainable transformer over words.

    `words` (B, L, width) are the outputs at all tokens. The first token is a start token, so that
    even an empty caption has one. `sentence` (B, width) is the layer norm of the mean output. The
    mean holds every word of the caption from the first training step on; the output at the start
    token would first have to learn to attend to the words.

    Args:
        config: Settings, with a filled vocabulary.
    """

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = TextShape(config.width, config.width)
        self._index = {word: len(SPECIAL) + i for i, word in enumerate(config.vocabulary)}
        self.embedding = nn.Embedding(
            len(SPECIAL) + len(config.vocabulary), config.width, padding_idx=PAD
        )
        self.position = nn.Parameter(
            torch.randn(config.max_words + 1, config.width) * config.positions
        )
        n = config.neighbours
        self.mix = nn.Conv1d(config.width, config.width, n, padding=n // 2) if n else None
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.embedding.weight, std=0.5)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Convert captions to tokens.

        Args:
            captions: B captions.

        Returns:
            The tokens, int64 (B, L), on the encoder's device: the start token first, padded with
            PAD.
        """
        rows = [
            [
                START,
                *(self._index.get(word, UNKNOWN) for word in split(caption, self.config.max_words)),
            ]
            for caption in captions
        ]
        length = max(map(len, rows), default=1)
        return torch.tensor(
            [row + [PAD] * (length - len(row)) for row in rows], device=self.position.device
        )

    def reading(self, caption: str) -> Reading:
        limit = self.config.max_words
        unknown = (word for word in split(caption, limit) if word not in self._index)
        return Reading("words", len(split_all(caption)), tuple(unknown), limit)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        tokens = self.tokens(captions)
        mask = tokens != PAD
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        kept = mask.unsqueeze(-1)
        if self.mix is not None:
            x = x + self.mix((x * kept).mT).mT
        h = self.transformer(x, src_key_padding_mask=~mask) * kept
        sentence = self.norm(h.sum(1) / kept.sum(1))
        words = self.norm(h) * kept  # masked outputs are 0, so code that ignores the mask is safe
        return TextFeatures(sentence, words, mask, tuple(captions))


def build(config: WordsConfig, assets: Path | None) -> WordsEncoder:
    """Build the encoder.

    Args:
        config: Settings. Without pretrained weights, with a filled vocabulary.
        assets: Folder of a saved model, whose weights are loaded later. None: a new model.

    Returns:
        The encoder, with new or pretrained weights.

    Raises:
        UserError: The pretrained weights cannot be found or do not fit the settings.
    """
    if config.weights and not config.vocabulary:
        config = described(config)
    encoder = WordsEncoder(config)
    if config.weights and assets is None:
        load_pretrained(encoder, config)
    return encoder.requires_grad_(not config.frozen)
