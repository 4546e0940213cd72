"""Features of captions by a frozen encoder, each computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch

from t2i.core.text import TextEncoder, TextFeatures, unique

LIMIT = 256 * 2**20  # bytes


class TextCache:
    """Gives features without gradients; keeps those of the captions used last, up to `limit` bytes.

    Padding beyond a caption's last word is not kept, and put back as far as the batch needs it.
    """

    def __init__(self, encoder: TextEncoder, limit: int = LIMIT) -> None:
        self._encoder = encoder
        self._limit = limit
        self._size = 0
        self._rows: OrderedDict[str, TextFeatures] = OrderedDict()

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        missing = [caption for caption in unique(captions) if caption not in self._rows]
        fresh: dict[str, TextFeatures] = {}
        if missing:
            features = self._encoder.encode(missing).detach()
            fresh = {caption: _trimmed(features[i : i + 1]) for i, caption in enumerate(missing)}
        rows = [fresh[caption] if caption in fresh else self._used(caption) for caption in captions]
        for caption, row in fresh.items():
            self._keep(caption, row)
        return replace(TextFeatures.cat(rows), captions=tuple(captions))

    def _used(self, caption: str) -> TextFeatures:
        self._rows.move_to_end(caption)
        return self._rows[caption]

    def _keep(self, caption: str, row: TextFeatures) -> None:
        self._rows[caption] = row
        self._size += _bytes(row)
        while self._size > self._limit:
            _, dropped = self._rows.popitem(last=False)
            self._size -= _bytes(dropped)


def _trimmed(row: TextFeatures) -> TextFeatures:
    attended = row.mask[0].nonzero()
    length = int(attended[-1]) + 1 if len(attended) else 1
    # Clones, so that a row does not hold the whole batch in memory.
    return replace(row, words=row.words[:, :length].clone(), mask=row.mask[:, :length].clone())


def _bytes(row: TextFeatures) -> int:
    tensors = (row.sentence, row.words, row.mask, *row.extras.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
