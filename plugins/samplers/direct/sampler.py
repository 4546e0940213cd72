"""The sampler `direct`: one call of the generator turns noise into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler, UnguidedConfig
from t2i.core.interfaces.text import TextFeatures

BOUND = 2.0
"""Bound of truncated noise, in standard deviations, as in BigGAN's and DF-GAN's released code."""


class DirectConfig(UnguidedConfig):
    """Settings of the sampler of one-shot models. `steps` is ignored."""

    truncation: float | None = Field(None, gt=0, le=1)
    """Truncation t of the noise z: values beyond +-2 are drawn again, then z is multiplied by t.

    Above 0, at most 1. A small t gives less variety and better images (Brock et al. 2019). DF-GAN
    samples at t = 0.88. None: no truncation, z is drawn from N(0, 1).
    """

    psi: float = Field(1.0, ge=0, le=1)
    """Truncation of styles: the share of their distance from the mean style that is kept.

    For models with a mean style, such as StyleGAN. 0: every image of a caption has that style. 1:
    no truncation.
    """


class DirectSampler(Sampler):
    """Draw the noise `normal("z", 0, noise_shape)` and call the generator once.

    Args:
        config: Settings of the sampler.
    """

    def __init__(self, config: DirectConfig) -> None:
        super().__init__(config)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, OneShotGenerator)
        request.refuse(
            "direct",
            guide="calls the generator once: there is no chain that a guide could steer",
            image="starts from noise, not from an image",
        )
        t: float | None = self.config.truncation
        shape = generator.noise_shape
        z = (
            request.noise.start("z", shape)
            if t is None
            else t * truncated_normal(request.noise, shape)
        )
        images = (
            generator(z, request.text)
            if self.config.psi == 1
            else truncatable(generator).truncated(z, request.text, self.config.psi)
        )
        request.step_done(1, 1)
        return images

    def check(self, generator: Generator) -> None:
        if self.config.psi != 1:
            truncatable(generator)

    def inverts(self, generator: Generator) -> bool:
        return (
            isinstance(generator, OneShotGenerator)
            and generator.inverts
            and self.config.truncation is None
            and self.config.psi == 1
        )

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        assert isinstance(generator, OneShotGenerator)
        return generator.invert(images, request.text)


@runtime_checkable
class Truncatable(Protocol):
    """A generator with a mean style."""

    def truncated(self, noise: Tensor, text: TextFeatures, psi: float) -> Tensor:
        """Generate images from styles that are drawn towards their mean.

        Args:
            noise: Noise from N(0, I), (B, *noise_shape).
            text: Features of B captions, as `condition` returned them.
            psi: Share of a style's distance from the mean that is kept.

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """


def truncatable(generator: Generator) -> Truncatable:
    """Return a generator that has a mean style.

    Args:
        generator: The generator.

    Returns:
        The same generator.

    Raises:
        UserError: It has none.
    """
    if not isinstance(generator, Truncatable):
        raise UserError(
            "direct: this model has no mean style, so psi must be 1; 'truncation' is for its noise"
        )
    return generator


def truncated_normal(noise: Noise, shape: Sequence[int]) -> Tensor:
    """Draw from N(0, 1), truncated to +-BOUND: values beyond the bound are drawn again.

    The n-th redraw of an image is step n of its noise "z". So the noise of an image depends only on
    its own key, not on the other images of the batch.

    Args:
        noise: Source of the random numbers, with one row for each of B images.
        shape: Shape of the noise of one image.

    Returns:
        The noise, float32 (B, *shape).
    """
    z = noise.normal("z", 0, shape)
    redraw = 0
    while (beyond := z.abs() > BOUND).any():
        redraw += 1
        z = torch.where(beyond, noise.normal("z", redraw, shape), z)
    return z
