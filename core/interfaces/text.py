"""Text: what an encoder makes of captions, and the interface of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextShape(NamedTuple):
    """Widths of an encoder's features: `sentence` D and `words` Dw. All that a generator needs to know of it."""

    sentence: int
    words: int


@dataclass(frozen=True)
class TextFeatures:
    """What an encoder makes of B captions.

    sentence: (B, D) float. words: (B, L, Dw) float. mask: (B, L) bool, True = may be attended to.
    captions: the B captions themselves, where they are known. extras: an encoder's own tensors, first axis B.
    """

    sentence: Tensor
    words: Tensor
    mask: Tensor
    captions: tuple[str, ...] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sentence)

    @property
    def shape(self) -> TextShape:
        return TextShape(self.sentence.shape[1], self.words.shape[2])

    def map(self, function: Callable[[Tensor], Tensor]) -> TextFeatures:
        """The same features with `function` applied to every tensor."""
        return replace(
            self,
            sentence=function(self.sentence),
            words=function(self.words),
            mask=function(self.mask),
            extras={name: function(value) for name, value in self.extras.items()},
        )

    def to(self, device: torch.device | str) -> TextFeatures:
        return self.map(lambda x: x.to(device, non_blocking=True))

    def detach(self) -> TextFeatures:
        return self.map(lambda x: x.detach())

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> TextFeatures:
        """The features of some of the captions, as a batch."""
        if isinstance(index, Tensor):
            index = index.tolist()
        rows = range(len(self))[index] if isinstance(index, slice) else index
        picked = self.map(lambda x: x[index])
        return replace(
            picked, captions=tuple(self.captions[i] for i in rows) if self.captions else ()
        )

    def padded(self, length: int) -> TextFeatures:
        """The same features with words padded (masked out) to `length`."""
        missing = length - self.words.shape[1]
        if missing <= 0:
            return self
        return replace(
            self, words=F.pad(self.words, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing))
        )

    def where(self, keep: Tensor, other: TextFeatures) -> TextFeatures:
        """These features where `keep` (B,) bool is True, `other`'s elsewhere: caption dropout."""
        length = max(self.words.shape[1], other.words.shape[1])
        a, b = self.padded(length), other.padded(length)

        def choose(x: Tensor, y: Tensor) -> Tensor:
            return torch.where(keep.view(-1, *[1] * (x.dim() - 1)), x, y)

        captions: tuple[str, ...] = ()
        if a.captions and b.captions:
            captions = tuple(
                m if k else n for k, m, n in zip(keep.tolist(), a.captions, b.captions, strict=True)
            )
        return TextFeatures(
            choose(a.sentence, b.sentence),
            choose(a.words, b.words),
            choose(a.mask, b.mask),
            captions,
            {
                name: choose(value, b.extras[name])
                for name, value in a.extras.items()
                if name in b.extras
            },
        )

    @staticmethod
    def cat(parts: Sequence[TextFeatures]) -> TextFeatures:
        """Several batches as one; words are padded to the longest."""
        if len(parts) == 1:
            return parts[0]
        length = max(part.words.shape[1] for part in parts)
        parts = [part.padded(length) for part in parts]
        known = all(part.captions for part in parts)
        return TextFeatures(
            torch.cat([part.sentence for part in parts]),
            torch.cat([part.words for part in parts]),
            torch.cat([part.mask for part in parts]),
            tuple(caption for part in parts for caption in part.captions) if known else (),
            {name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras},
        )

    @staticmethod
    def of(
        *, sentence: Tensor | None = None, words: Tensor | None = None, mask: Tensor | None = None,
        captions: Sequence[str] = (),
    ) -> TextFeatures:  # fmt: skip
        """Features of an encoder that has only one of the two: words = sentence[:, None], or the masked mean."""
        if words is None:
            if sentence is None:
                raise ValueError("TextFeatures.of needs sentence or words")
            words = sentence[:, None]
        if mask is None:
            mask = torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
        if sentence is None:
            weight = mask.unsqueeze(-1).to(words.dtype)
            sentence = (words * weight).sum(1) / weight.sum(1).clamp(min=1)
        return TextFeatures(sentence, words, mask, tuple(captions))


class TextEncoder(nn.Module, ABC):
    """Turns captions into features. Trainable or frozen: the parameters' `requires_grad` says which."""

    shape: TextShape

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Features of the captions, on the encoder's device. Any str is legal: empty, very long, unknown words."""

    def null(self, n: int) -> TextFeatures:
        """Features of "no caption", n times: caption dropout in training, the unconditional branch in guidance."""
        return self.encode([""] * n)

    def save_assets(self, folder: Path) -> None:
        """Writes what `build` needs beside the weights and the settings (a tokenizer's files). Default: nothing."""

    @property
    def trainable(self) -> bool:
        return any(p.requires_grad for p in self.parameters())


def unique(captions: Iterable[str]) -> list[str]:
    """The distinct captions, in order of first appearance."""
    return list(dict.fromkeys(captions))
