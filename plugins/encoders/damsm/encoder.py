"""The text encoder `damsm`: the text half of AttnGAN's DAMSM (Xu et al. 2018, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.plugins.encoders.damsm.config import DamsmConfig, split, split_all
from t2i.plugins.encoders.damsm.weights import load

END = 0  # token of no word: padding, and the only token of a caption without known words


class DamsmEncoder(TextEncoder):
    """A bidirectional LSTM over word embeddings.

    `words` (B, L, width) are the outputs of both directions at each word. `sentence` (B, width)
    are the last states of both, the forward direction first. Unknown words are skipped.
    Source: Xu et al. 2018, section 3.2.

    Args:
        config: Settings, with a filled vocabulary.
    """

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
        """Convert captions to tokens.

        Args:
            captions: B captions.

        Returns:
            The tokens, int64 (B, L), padded with END, on the encoder's device; and the number of
            tokens of each caption, int64 (B,), on the CPU.
        """
        limit = self.config.max_words
        known = (
            [self._index[word] for word in split(c, limit) if word in self._index] for c in captions
        )
        rows = [row[:limit] or [END] for row in known]
        lengths = torch.tensor([len(row) for row in rows])
        padded = [row + [END] * (int(lengths.max()) - len(row)) for row in rows]
        return torch.tensor(padded, device=self.embedding.weight.device), lengths

    def reading(self, caption: str) -> Reading:
        words = split_all(caption)
        unknown = [word for word in words if not self._known(word)]
        # The limit counts known words: unknown ones are skipped before the caption is cut.
        return Reading("words", len(words), tuple(unknown), self.config.max_words + len(unknown))

    def _known(self, word: str) -> bool:
        return word.encode("ascii", "ignore").decode() in self._index

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        tokens, lengths = self.tokens(captions)
        x = self.dropout(self.embedding(tokens))
        # Packed, so that the backward direction starts at the caption's last word, not at padding.
        output, (state, _) = self.lstm(
            pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        )
        words, _ = pad_packed_sequence(output, batch_first=True)
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return TextFeatures(
            state.transpose(0, 1).flatten(1), words, mask.to(words.device), tuple(captions)
        )


def build(config: DamsmConfig, assets: Path | None) -> DamsmEncoder:
    """Build the encoder, with the authors' weights if the settings name them.

    Args:
        config: Settings, with a filled vocabulary.
        assets: Folder of a saved model, whose weights the caller loads afterwards. None for a new
            encoder.

    Returns:
        The encoder; frozen if `frozen` or `weights` is set.

    Raises:
        UserError: The file of weights cannot be read or does not fit.
    """
    encoder = DamsmEncoder(config)
    if config.weights and assets is None:
        load(encoder, Path(config.weights), len(config.vocabulary), config.captions)
    return encoder.requires_grad_(not (config.frozen or config.weights))
