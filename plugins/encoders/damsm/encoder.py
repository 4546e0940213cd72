"""The `damsm` encoder: the text half of AttnGAN's DAMSM (Xu et al. 2018, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.plugins.encoders.damsm.config import DamsmConfig, split
from t2i.plugins.encoders.damsm.weights import load

END = 0  # stands for no word: padding, and the one token of a caption without known words


class DamsmEncoder(TextEncoder):
    """words (B, L, width): both directions' outputs at each word. sentence (B, width): their last states, forward
    first. Unknown words are left out."""

    def __init__(self, config: DamsmConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = TextShape(config.width, config.width)
        self._index = {word: 1 + i for i, word in enumerate(config.vocabulary)}
        self.embedding = nn.Embedding(1 + len(config.vocabulary), config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(
            config.embedding, config.width // 2, batch_first=True, bidirectional=True
        )
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers (B, L), long, padded with END, and how many are each caption's own (B,), on the processor."""
        limit = self.config.max_words
        known = (
            [self._index[word] for word in split(c, limit) if word in self._index] for c in captions
        )
        rows = [row[:limit] or [END] for row in known]
        lengths = torch.tensor([len(row) for row in rows])
        padded = [row + [END] * (int(lengths.max()) - len(row)) for row in rows]
        return torch.tensor(padded, device=self.embedding.weight.device), lengths

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        tokens, lengths = self.tokens(captions)
        x = self.dropout(self.embedding(tokens))
        # Packed: the backward direction begins at a caption's own last word, not at the padding.
        output, (state, _) = self.lstm(
            pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        )
        words, _ = pad_packed_sequence(output, batch_first=True)
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return TextFeatures(
            state.transpose(0, 1).flatten(1), words, mask.to(words.device), tuple(captions)
        )


def build(config: DamsmConfig, assets: Path | None) -> DamsmEncoder:
    """The encoder, with the authors' weights if they are named; of a saved model, one whose weights are still to be
    loaded. UserError if the named file cannot be had or does not fit."""
    encoder = DamsmEncoder(config)
    if config.weights and assets is None:
        load(encoder, Path(config.weights))
    return encoder.requires_grad_(not (config.frozen or config.weights))
