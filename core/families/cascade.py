"""Cascades: generators in a row, each of which is given what the one before it drew. GLIDE, Imagen, DALL-E 2."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from t2i.core.interfaces.generator import TOLERANCES, Generator, Tolerance
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

PREVIOUS = "previous"
"""Name among a text's extras of what the part before drew."""


class CascadeGenerator(Generator):
    """Named parts, each a generator of any family, drawn in order; the last part's images are the cascade's.

    A part need not draw images: a prior draws embeddings (B, D), which its sampler returns as its `decode` gives them.
    Each part is drawn by a sampler of its own, on noise of a scope of its own. A part may be a cascade itself.

    Attributes:
        parts: the generators by name, in the order in which they are drawn.
    """

    family = "cascade"
    parts: nn.ModuleDict

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        """The loosest of its parts'."""
        return max((self.part(name).tolerance for name in self.parts), key=TOLERANCES.index)

    def part(self, name: str) -> Generator:
        """The part of that name. Raises KeyError if there is none."""
        return cast(Generator, self.parts[name])

    def link(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        """What part `name` is conditioned on. Called once a part for the text, and once more, with the same `previous`
        and the same noise, for the features of no caption where the part's sampler needs them.

        Args:
            text: what the cascade's own `condition` returned.
            previous: what the part before drew (B, ...), as its sampler returned it: images of a diffusion model may
                reach beyond [-1, 1]. None for the first part.
            noise: for noise that is added to `previous` (conditioning augmentation). Nothing else draws from it.

        Returns:
            What that part's `condition` makes of the text. Default: of the text with `previous` among the extras.
        """
        extras = dict(text.extras) if previous is None else {**text.extras, PREVIOUS: previous}
        return self.part(name).condition(replace(text, extras=extras))
