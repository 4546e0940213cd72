"""Checks of a text encoder."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object

CAPTIONS = ["a red circle", "two small blue squares above a large green star on white", "red"]
"""Ordinary captions, of different lengths."""

STRANGE = [
    "",
    " ",
    "\n\t",
    "\N{ARTIST PALETTE}",
    "\u202e",
    "many words " * 500,
    "zzz qqq",
    "\ud800",
]
"""Unusual captions, in order: empty, white space, an emoji, a direction mark, a thousand words,
unknown words, and half of a surrogate pair."""

CLOSE = 1e-4
"""How much a caption's features may change with the other captions of the batch (relative)."""


class EncoderPart(Part):
    """A text encoder with its default settings, fitted to a few captions if its spec has `fit`."""

    @cached_property
    def chosen(self) -> Choice[Any]:
        """The encoder and its settings, after fitting."""
        choice = self.choice()
        fit = self.spec.fit
        return Choice(self.name, import_object(fit)(choice.config, CAPTIONS)) if fit else choice

    @cached_property
    def encoder(self) -> TextEncoder:
        """The encoder in evaluation mode. A UserError, as without its weights, skips the check."""
        torch.manual_seed(0)
        try:
            encoder: TextEncoder = import_object(self.spec.build)(self.chosen.config, None)
            with torch.no_grad():
                encoder.eval().encode(CAPTIONS[:1])
        except UserError as error:
            raise Skipped(str(error)) from None
        return encoder

    @torch.no_grad()
    def encode(self, captions: list[str]) -> TextFeatures:
        """Encode captions without gradients.

        Args:
            captions: B captions.

        Returns:
            Their features.
        """
        return self.encoder.encode(captions)


def features(subject: EncoderPart) -> None:
    """Its features are finite and have the shapes that it declares.

    These are sentence (B, D), words (B, L, Dw) and mask, bool (B, L).

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    _sound(subject, CAPTIONS)


def any_text(subject: EncoderPart) -> None:
    """It encodes any text: empty, white space, emoji, direction marks, a thousand words.

    Half of a surrogate pair is tried, too.

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    _sound(subject, STRANGE)


def repeats(subject: EncoderPart) -> None:
    """The same captions get the same features, bit for bit.

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    first, again = subject.encode(CAPTIONS), subject.encode(CAPTIONS)
    same = torch.equal(first.sentence, again.sentence) and torch.equal(first.words, again.words)
    need(same, "two calls with the same captions give different features, in evaluation mode")


def company(subject: EncoderPart) -> None:
    """A caption's features do not depend on the other captions of its batch, nor on padding.

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    together = subject.encode(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone = subject.encode([caption])
        length = int(alone.mask[0].sum())
        pairs = [
            (together.sentence[row], alone.sentence[0]),
            (together.words[row, :length], alone.words[0, :length]),
        ]
        for name, (a, b) in zip(("sentence", "words"), pairs, strict=True):
            off = float((a - b).abs().max())
            need(
                off <= CLOSE * (1 + float(b.abs().max())),
                f"beside others, '{caption}' gets another {name} (by {off:.2g})",
            )


def null(subject: EncoderPart) -> None:
    """It has features for "no caption", in any number of rows that are all alike.

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    with torch.no_grad():
        found = subject.encoder.null(3)
    need(len(found) == 3, f"null(3) has {len(found)} rows")
    need(
        torch.allclose(found.sentence[:1].expand(3, -1), found.sentence, atol=CLOSE),
        "rows of null(3) differ",
    )


def saves(subject: EncoderPart) -> None:
    """Saved and loaded again, it returns the same features, bit for bit.

    Args:
        subject: The text encoder.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    encoder, before = subject.encoder, subject.encode(CAPTIONS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "assets"
        folder.mkdir()
        encoder.save_assets(folder)
        save_tensors(Path(place) / "weights.safetensors", owned_tensors(encoder))
        torch.manual_seed(1)
        again: TextEncoder = import_object(subject.spec.build)(subject.chosen.config, folder)
        load_state(
            again, load_tensors(Path(place) / "weights.safetensors", "encoder"), "its saved weights"
        )
    with torch.no_grad():
        after = again.eval().encode(CAPTIONS)
    same = torch.equal(before.sentence, after.sentence) and torch.equal(before.words, after.words)
    need(same, "loaded from what it saves, it gives other features")


def _sound(subject: EncoderPart, captions: list[str]) -> None:
    """Check the shapes, types and values of the features of some captions."""
    found, shape, n = subject.encode(captions), subject.encoder.shape, len(captions)
    need(
        found.sentence.shape == (n, shape.sentence),
        f"sentence is {tuple(found.sentence.shape)}, it says {shape}",
    )
    words = found.words
    need(
        words.dim() == 3 and words.shape[::2] == (n, shape.words),
        f"words is {tuple(words.shape)}, it says {shape}",
    )
    said = f"{found.mask.dtype} {tuple(found.mask.shape)}"
    need(found.mask.shape == words.shape[:2] and found.mask.dtype == torch.bool, f"mask is {said}")
    need(bool(found.mask.any(1).all()), "a caption has no word that may be attended to")
    need(
        bool(found.sentence.isfinite().all() and words.isfinite().all()),
        "there are values that are not finite",
    )
    need(len(found.captions) in (0, n), f"its features name {len(found.captions)} captions of {n}")
