"""A cache of a frozen encoder's text features, so that each caption is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch

from t2i.core.devices import device_of
from t2i.core.interfaces.text import TextEncoder, TextFeatures, unique

LIMIT = 256 * 2**20  # bytes
SMALL = 5_000_000  # parameters


class TextCache:
    """Encodes captions with a frozen encoder and keeps the features of those used last.

    `cache(captions)` returns the features without gradients, in full precision (autocast is off).

    A step's features must not depend on what the cache holds, or a resumed run would differ from
    one that was never stopped: the last bits of a caption's features depend on the captions that
    are encoded with it. On the CPU each caption is therefore encoded alone, which costs little
    there. On an accelerator that would cost much, and the last bits vary anyway: there all captions
    that are missing from the cache are encoded together.

    Args:
        encoder: The frozen encoder.
        limit: Most bytes of features to keep.
        small: An encoder with fewer parameters than this runs each time and nothing is kept, since
            looking its features up takes as long.
    """

    def __init__(self, encoder: TextEncoder, limit: int = LIMIT, small: int = SMALL) -> None:
        self._encoder = encoder
        self._limit = limit
        self._size = 0
        self._rows: OrderedDict[str, TextFeatures] = OrderedDict()
        self._null: TextFeatures | None = None
        self._kept = sum(p.numel() for p in encoder.parameters()) >= small

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        if not self._kept:
            return self._encoded(captions)
        missing = [caption for caption in unique(captions) if caption not in self._rows]
        fresh = self._one_by_one(missing) if missing else {}
        rows = [fresh[caption] if caption in fresh else self._used(caption) for caption in captions]
        for caption, row in fresh.items():
            self._keep(caption, row)
        return replace(TextFeatures.cat(rows), captions=tuple(captions))

    def null(self, n: int) -> TextFeatures:
        """Return the features of "no caption" (`TextEncoder.null`).

        Args:
            n: Number of rows.

        Returns:
            The same features `n` times.
        """
        if self._null is None:
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                self._null = self._encoder.null(1).detach()
        repeated = self._null.map(lambda x: x.repeat(n, *[1] * (x.dim() - 1)))
        return replace(repeated, captions=self._null.captions * n)

    @property
    def _device(self) -> torch.device:
        return device_of(self._encoder)

    def _encoded(self, captions: Sequence[str]) -> TextFeatures:
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return self._encoder.encode(captions).detach()

    def _one_by_one(self, captions: Sequence[str]) -> dict[str, TextFeatures]:
        if self._device.type == "cpu":
            return {caption: self._encoded([caption]) for caption in captions}
        features = self._encoded(captions)
        # Cloned, or each row would keep the whole batch in memory.
        return {caption: features[i : i + 1].map(torch.clone) for i, caption in enumerate(captions)}

    def _used(self, caption: str) -> TextFeatures:
        self._rows.move_to_end(caption)
        return self._rows[caption]

    def _keep(self, caption: str, row: TextFeatures) -> None:
        self._rows[caption] = row
        self._size += _bytes(row)
        while self._size > self._limit:
            _, dropped = self._rows.popitem(last=False)
            self._size -= _bytes(dropped)


def _bytes(row: TextFeatures) -> int:
    tensors = (row.sentence, row.words, row.mask, *row.extras.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
