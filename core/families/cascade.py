"""The family of cascades, such as GLIDE, Imagen and DALL-E 2.

A cascade is a row of generators, each conditioned on the sample of the one before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.generator import TOLERANCES, Generator, Tolerance
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

PREVIOUS = "previous"
"""Key in `TextFeatures.extras` of the sample of the previous part."""


LEVEL = "augmentation"
"""Key in `TextFeatures.extras` of the level of noise added to `PREVIOUS`, (B,) in [0, 1]."""

KNOWN = "known"
"""Key in `TextFeatures.extras` of what is known of an image whose rest is sampled (`Request.mask`).

It is (B, 4, H, W): the image where it is known, else 0; and 1 where it is known, else 0. Networks
that were trained for inpainting read it."""


def low_res(images: Tensor, size: tuple[int, int] | int) -> Tensor:
    """Reduce images to the size that an earlier part of a cascade draws, as an upsampler wants it.

    Each pixel is the mean of the pixels that it covers, rounded to 8 bits as in a file.

    Args:
        images: Images in [-1, 1], (B, 3, H, W).
        size: Height and width of the result, each a divisor of H and W. One number: both.

    Returns:
        The images, (B, 3, *size) in [-1, 1].
    """
    sides = (size, size) if isinstance(size, int) else size
    if tuple(images.shape[-2:]) == sides:
        return images
    return rounded(F.interpolate(images, sides, mode="area"))


def rounded(images: Tensor) -> Tensor:
    """Round images to the values that 8 bits can hold.

    Args:
        images: Images, (B, 3, H, W). Values outside [-1, 1] are clipped.

    Returns:
        The images in [-1, 1].
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


class Enlarging(ABC):
    """What a generator of any family extends too if it enlarges smaller images.

    Attributes:
        low_size: Height and width of the smaller images, pixels.
        image_size: Height and width of the enlarged images, pixels.
    """

    low_size: int
    image_size: int

    @abstractmethod
    def enlarging(
        self, images: Tensor, noise: Noise, level: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Make the extras by which `condition` is given the smaller images.

        Args:
            images: The smaller images, (B, 3, h, w). Those of a sampler may exceed [-1, 1].
            noise: Source of the noise that is added to them (conditioning augmentation).
            level: Level of that noise for each image, (B,) in [0, 1]. None: the model's own.

        Returns:
            Extras of the text by name, `PREVIOUS` among them, each with first axis B.
        """


class CascadeGenerator(Generator):
    """A generator of several parts, which are sampled in order.

    The images of the last part are those of the cascade.

    A part is a generator of any family, a cascade too. It need not sample images: a prior samples
    embeddings (B, D), which its `decode` and so its sampler return. Each part has its own sampler,
    and its own scope of the noise.

    Attributes:
        parts: The generators by name, in the order in which they are sampled.
        embedded: Name of the part that samples embeddings of images, which `embed` computes of
            images themselves. None: there is none.
    """

    family = "cascade"
    parts: nn.ModuleDict
    embedded: str | None = None

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

    def up_to(self, name: str) -> CascadeGenerator:
        """Return the beginning of this cascade, which shares its networks.

        Args:
            name: Name of the last part.

        Returns:
            A cascade of the parts up to that one, whose images it samples.
        """
        names = list(self.parts)
        kept = names[: names.index(name) + 1]
        beginning = copy(self)
        beginning._modules = {**self._modules, "parts": nn.ModuleDict()}
        for part in kept:
            beginning.parts[part] = self.parts[part]
        beginning.image_size = self.part(name).image_size
        return beginning

    def link(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        """Condition a part on the text and on the sample of the previous part.

        By default `previous` is added to the extras of the text, under the key `PREVIOUS`. A part
        that enlarges images adds noise of the level `LEVEL` to it first.

        Called once for each part with the features of the captions, and again with those of "no
        caption", the same `previous` and the same noise if the part's sampler needs them.

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
        part, extras = self.part(name), dict(text.extras)
        if previous is not None and isinstance(part, Enlarging):
            extras |= part.enlarging(previous, noise, extras.get(LEVEL))
        elif previous is not None:
            extras[PREVIOUS] = previous
        return part.condition(replace(text, extras=extras))

    def link_null(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        """Condition a part for the branch of guidance that is given no caption.

        By default as `link` does, on the same `previous`.

        Args:
            name: Name of the part.
            text: Features of B times "no caption", as the cascade's `condition` returned them.
            previous: As of `link`.
            noise: As of `link`.

        Returns:
            Features of the B captions, as the `condition` of the part returned them.
        """
        return self.link(name, text, previous, noise)

    def embed(self, images: Tensor) -> Tensor:
        """Compute what the part `embedded` samples, of images themselves.

        Only generators with `embedded` have this method.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Embeddings, (B, D).

        Raises:
            NotImplementedError: The generator has no such part.
            UserError: The network that embeds is missing.
        """
        raise NotImplementedError(f"{type(self).__name__} embeds no images")

    def edited(
        self, images: Tensor, text: TextFeatures, null: TextFeatures, share: float
    ) -> Tensor:
        """Compute embeddings of images that are changed towards other captions.

        Only generators with `embedded` have this method.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].
            text: Features of the captions that are wanted.
            null: Features of the captions that the images have, or of "no caption".
            share: How far, from 0 (not) to 1.

        Returns:
            Embeddings, (B, D).

        Raises:
            NotImplementedError: The generator has no such part.
        """
        raise NotImplementedError(f"{type(self).__name__} embeds no images")
