"""Enlarging the images of one model by another, an upsampler (`t2i sample --upsample`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.cascade import Enlarging
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig

SCOPE = "upsample"
"""Scope of the noise of all upsamplers; within it each has its number, from 0."""


def enlarges(spec: ModelSpec) -> bool:
    """Tell whether a model is an upsampler.

    Args:
        spec: Its specification. Its module is imported.

    Returns:
        Whether its generator is a class that enlarges images. False for a function that builds one.
    """
    generator = import_object(spec.generator)
    return isinstance(generator, type) and issubclass(generator, Enlarging)


class Enlarger(Protocol):
    """What is used here of a model (`t2i.core.models.model`).

    Attributes:
        config: Its settings.
        generator: Its network that enlarges.
        text_encoder: Its network that reads captions.
    """

    config: RunConfig
    generator: Generator
    text_encoder: TextEncoder

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    def eval(self) -> Self:
        """Put the networks into evaluation mode.

        Returns:
            The model.
        """


@dataclass(frozen=True)
class Upsampling:
    """An upsampler that enlarges the images of another model.

    Args:
        model: The upsampler.
        sampler: Its sampler. None: its own.
        level: Level of the noise that is added to the smaller images, 0 to 1. None: its own.
        run: Where it came from, for the record. None: not recorded.

    Raises:
        UserError: The model enlarges no images, or the level is out of range.
    """

    model: Enlarger
    sampler: Choice[SamplerConfig] | None = None
    level: float | None = None
    run: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model.generator, Enlarging):
            raise UserError(
                f"model '{self.model.config.model}' enlarges no images: give a run of an upsampler "
                "('t2i train --model upsampler')"
            )
        if self.level is not None and not 0 <= self.level <= 1:
            raise UserError(f"upsample.augmentation = {self.level}: a number between 0 and 1")

    @property
    def choice(self) -> Choice[SamplerConfig]:
        """The sampler."""
        return self.sampler or self.model.config.sampler

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Check that images can be enlarged.

        Args:
            size: Their height and width in pixels.

        Returns:
            Height and width of the enlarged images.

        Raises:
            UserError: The upsampler was trained on smaller images of another size.
        """
        generator: Any = self.model.generator
        if size != (generator.low_size, generator.low_size):
            raise UserError(
                f"{self.run or self.model.config.model} enlarges images of {generator.low_size} x "
                f"{generator.low_size} pixels, not of {size[1]} x {size[0]}: train an upsampler "
                f"with low_size={size[0]}"
            )
        return (generator.image_size, generator.image_size)

    def enlarge(self, images: Tensor, captions: Sequence[str], noise: PromptNoise) -> Tensor:
        """Enlarge images.

        Args:
            images: The images, (B, 3, h, w) in [-1, 1].
            captions: Their B captions.
            noise: Source of random numbers, of this upsampler alone.

        Returns:
            The larger images, (B, 3, H, W).
        """
        model, generator = self.model.eval(), self.model.generator
        assert isinstance(generator, Enlarging)
        sampler = registry().samplers.build(self.choice)
        images = images.to(model.device)
        level = None if self.level is None else images.new_full((len(images),), self.level)
        extras = generator.enlarging(images, noise.scope("link"), level)

        def given(text: TextFeatures) -> TextFeatures:
            return model.generator.condition(replace(text, extras={**text.extras, **extras}))

        with torch.no_grad():
            null = model.text_encoder.null(len(images)) if sampler.needs_null else None
            request = Request(
                text=given(model.text_encoder.encode(captions)),
                noise=noise,
                null=None if null is None else given(null),
            )
            larger: Tensor = sampler.sample(model.generator, request)
        return larger


def enlarged(
    images: Tensor, upsample: Sequence[Upsampling], captions: Sequence[str], noise: PromptNoise
) -> Tensor:
    """Enlarge images by one upsampler after the other, each with noise of its own.

    Args:
        images: The images, (B, 3, h, w).
        upsample: The upsamplers.
        captions: The captions of the images.
        noise: The noise that the images were sampled with.

    Returns:
        The larger images.
    """
    for number, one in enumerate(upsample):
        images = one.enlarge(images, captions, noise.scope(SCOPE).scope(str(number)))
    return images


def enlarged_size(size: tuple[int, int], upsample: Sequence[Upsampling]) -> tuple[int, int]:
    """Return the size of images after upsamplers.

    Args:
        size: Height and width before, in pixels.
        upsample: The upsamplers.

    Returns:
        Height and width.

    Raises:
        UserError: An upsampler does not fit.
    """
    for one in upsample:
        size = one.size(size)
    return size
