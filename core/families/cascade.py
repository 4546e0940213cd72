"""Cascades: generators in a row, each of which is given what the one before it drew. GLIDE, Imagen, DALL-E 2."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

PREVIOUS = "previous"
"""Name among a text's extras of what the part before drew."""


class CascadeGenerator(Generator):
    """Named parts, each a generator of any family, drawn in order; the last part's images are the cascade's.

    A part need not draw images: a prior draws embeddings (B, D). Each part is drawn by a sampler of its own, on noise
    of a scope of its own.

    Attributes:
        parts: the generators by name, in the order in which they are drawn.
    """

    family = "cascade"
    parts: nn.ModuleDict

    def part(self, name: str) -> Generator:
        """The part of that name. Raises KeyError if there is none."""
        return cast(Generator, self.parts[name])

    def link(self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise) -> TextFeatures:
        """What part `name` is conditioned on.

        Args:
            text: the cascade's own conditioned text.
            previous: what the part before drew (B, ...); None for the first part.
            noise: the part's own scope, for noise that is added to `previous` (conditioning augmentation).

        Returns:
            The text as that part's `condition` returns it. Default: with `previous` among the extras.
        """
        extras = dict(text.extras) if previous is None else {**text.extras, PREVIOUS: previous}
        return self.part(name).condition(replace(text, extras=extras))
