"""Text features, and the interface of text encoders."""

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
    """Widths of a text encoder's features. A generator is built for them.

    Attributes:
        sentence: Width D of a sentence vector.
        words: Width Dw of a word vector.
    """

    sentence: int
    words: int


@dataclass(frozen=True)
class TextFeatures:
    """Features of B captions.

    Args:
        sentence: Sentence vectors, float (B, D).
        words: Word vectors, float (B, L, Dw).
        mask: Which words count, bool (B, L). False marks padding, which attention must ignore.
        captions: The B captions, or () where they are not known.
        extras: Further tensors of the encoder by name, each with first axis B.
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
        """The widths of the features."""
        return TextShape(self.sentence.shape[1], self.words.shape[2])

    def map(self, function: Callable[[Tensor], Tensor]) -> TextFeatures:
        """Apply a function to every tensor.

        Args:
            function: From a tensor (B, ...) to a tensor (B, ...).

        Returns:
            The new features, with the same captions.
        """
        return replace(
            self,
            sentence=function(self.sentence),
            words=function(self.words),
            mask=function(self.mask),
            extras={name: function(value) for name, value in self.extras.items()},
        )

    def to(self, device: torch.device | str) -> TextFeatures:
        """Move all tensors to a device.

        Args:
            device: Such as "cuda" or "cpu".

        Returns:
            The features there.
        """
        return self.map(lambda x: x.to(device, non_blocking=True))

    def detach(self) -> TextFeatures:
        """Cut all tensors from the graph of gradients.

        Returns:
            The features without gradients.
        """
        return self.map(lambda x: x.detach())

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> TextFeatures:
        """Take the features of some of the captions, as a batch."""
        if isinstance(index, Tensor):
            index = index.tolist()
        rows = range(len(self))[index] if isinstance(index, slice) else index
        picked = self.map(lambda x: x[index])
        return replace(
            picked, captions=tuple(self.captions[i] for i in rows) if self.captions else ()
        )

    def padded(self, length: int) -> TextFeatures:
        """Pad the words, which the mask then excludes.

        Args:
            length: Number of words to pad to. Features that are longer stay as they are.

        Returns:
            Features with at least `length` words.
        """
        missing = length - self.words.shape[1]
        if missing <= 0:
            return self
        return replace(
            self, words=F.pad(self.words, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing))
        )

    def where(self, keep: Tensor, other: TextFeatures) -> TextFeatures:
        """Take these features in some rows and other features in the rest (caption dropout).

        Args:
            keep: Which rows to keep, bool (B,).
            other: Features for the other rows, of B captions.

        Returns:
            Features of B captions.
        """
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
        """Concatenate batches. Words are padded to the longest.

        Args:
            parts: At least one batch.

        Returns:
            One batch.
        """
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
        """Make features for an encoder that has sentence vectors or word vectors only.

        Without words, the sentence is the only word. Without a sentence, it is the mean of the
        words.

        Args:
            sentence: Sentence vectors, float (B, D). None: computed from `words`.
            words: Word vectors, float (B, L, Dw). None: computed from `sentence`.
            mask: Which words count, bool (B, L). None: all.
            captions: The B captions, or () where they are not known.

        Returns:
            The features.

        Raises:
            ValueError: Neither `sentence` nor `words` is given.
        """
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


class Reading(NamedTuple):
    """What a text encoder makes of a caption.

    Attributes:
        unit: What is counted, in the plural: "words", "characters" or "tokens".
        total: Number of units in the caption.
        unknown: The units that the encoder does not know, in order, repeated ones too.
        limit: Largest number of units that are read; the rest is cut. 0: captions have no effect.
            None: there is no limit.
    """

    unit: str
    total: int
    unknown: tuple[str, ...] = ()
    limit: int | None = None


class TextEncoder(nn.Module, ABC):
    """Turns captions into features.

    An encoder is trainable if any of its parameters requires gradients; else it is frozen.

    Attributes:
        shape: Widths of the features. `__init__` sets it.
    """

    shape: TextShape

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions.

        Args:
            captions: B captions. Any str is legal: an empty one, a very long one, unknown words.

        Returns:
            Features of the B captions, on the encoder's device.
        """

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions. `encoder(captions)` equals `encoder.encode(captions)`.

        Args:
            captions: B captions.

        Returns:
            Features of the B captions.
        """
        return self.encode(captions)

    def reading(self, caption: str) -> Reading | None:
        """Tell what of a caption is unknown, and what is cut. Sampling warns of both.

        Args:
            caption: The caption.

        Returns:
            What the encoder makes of it. None, the default: the encoder cannot tell.
        """
        return None

    def null(self, n: int) -> TextFeatures:
        """Make the features of "no caption", for caption dropout and for guidance.

        Args:
            n: Number of rows.

        Returns:
            Features of n empty captions.
        """
        return self.encode([""] * n)

    def save_assets(self, folder: Path) -> None:
        """Write the files that `build` needs beside weights and settings, such as a tokenizer's.

        The default writes nothing.

        Args:
            folder: An existing folder, which belongs to this encoder.
        """

    @property
    def trainable(self) -> bool:
        """Whether any parameter requires gradients."""
        return any(p.requires_grad for p in self.parameters())


def unique(captions: Iterable[str]) -> list[str]:
    """Remove repeated captions.

    Args:
        captions: Captions in any order.

    Returns:
        The distinct captions, in the order in which they first appear.
    """
    return list(dict.fromkeys(captions))
