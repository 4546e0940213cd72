"""Features of text encoders without a network, which only number the tokens of captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextFeatures

TOKENS = "tokens"
"""Name of the tokens in the extras of text features."""


def padded(
    rows: Sequence[Sequence[int]], length: int, pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cut or pad the tokens of captions to one length.

    Args:
        rows: Numbers of the tokens of each caption.
        length: Number of tokens, L.
        pad: Number of the token of padding.
        device: Where the result is.

    Returns:
        The tokens, int64 (B, L), and how many of each caption are its own, int64 (B,).
    """
    kept = [[*row[:length], *[pad] * (length - len(row))] for row in rows]
    counts = [min(len(row), length) for row in rows]
    tokens = torch.tensor(kept, dtype=torch.long, device=device).view(len(rows), length)
    return tokens, torch.tensor(counts, dtype=torch.long, device=device)


def token_features(
    tokens: Tensor, counts: Tensor, total: int, captions: Sequence[str]
) -> TextFeatures:
    """Make features of tokens: the tokens themselves, and their numbers in the place of words.

    Args:
        tokens: The tokens, int64 (B, L).
        counts: How many of each caption count, int64 (B,).
        total: Number of all tokens that there are.
        captions: The B captions.

    Returns:
        Features whose words are the numbers divided by `total`, float (B, L, 1), and whose sentence
        is their mean; the tokens are among the extras.
    """
    mask = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]
    words = (tokens / total)[..., None] * mask[..., None]
    sentence = TextFeatures.of(words=words, mask=mask).sentence
    return TextFeatures(sentence, words, mask, tuple(captions), {TOKENS: tokens})
