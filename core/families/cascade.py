"""The family of cascades, such as GLIDE, Imagen and DALL-E 2.

A cascade is a row of generators, each conditioned on the sample of the one before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from t2i.core.interfaces.generator import TOLERANCES, Generator, Tolerance
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

PREVIOUS = "previous"
"""Key in `TextFeatures.extras` of the sample of the previous part."""


class CascadeGenerator(Generator):
    """A generator of several parts, which are sampled in order.

    The images of the last part are those of the cascade.

    A part is a generator of any family, a cascade too. It need not sample images: a prior samples
    embeddings (B, D), which its `decode` and so its sampler return. Each part has its own sampler,
    and its own scope of the noise.

    Attributes:
        parts: The generators by name, in the order in which they are sampled.
    """

    family = "cascade"
    parts: nn.ModuleDict

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        """The loosest tolerance of the parts."""
        return max((self.part(name).tolerance for name in self.parts), key=TOLERANCES.index)

    def part(self, name: str) -> Generator:
        """Return a part by name.

        Args:
            name: Name of the part.

        Returns:
            Its generator.

        Raises:
            KeyError: There is no part of that name.
        """
        return cast(Generator, self.parts[name])

    def link(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        """Condition a part on the text and on the sample of the previous part.

        By default `previous` is added to the extras of the text, under the key `PREVIOUS`. Called
        once for each part with the features of the captions, and again with those of "no caption",
        the same `previous` and the same noise if the part's sampler needs them.

        Args:
            name: Name of the part.
            text: Features of B captions, as the cascade's own `condition` returned them.
            previous: Sample of the previous part (B, ...), as its sampler returned it. Images of a
                diffusion model may exceed [-1, 1]. None: this is the first part.
            noise: Source of the noise that is added to `previous` (conditioning augmentation).
                Nothing else draws from it.

        Returns:
            Features of the B captions, as the `condition` of the part returned them.
        """
        extras = dict(text.extras) if previous is None else {**text.extras, PREVIOUS: previous}
        return self.part(name).condition(replace(text, extras=extras))
