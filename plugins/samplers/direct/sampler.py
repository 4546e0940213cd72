"""The sampler `direct`: one call of the generator turns noise into images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler, UnguidedConfig

BOUND = 2.0
"""Bound of truncated noise, in standard deviations, as in BigGAN's and DF-GAN's released code."""


class DirectConfig(UnguidedConfig):
    """Settings of the sampler of one-shot models. `steps` is ignored."""

    truncation: float | None = Field(None, gt=0, le=1)
    """Truncation t of the noise z: values beyond +-2 are drawn again, then z is multiplied by t.

    Above 0, at most 1. A small t gives less variety and better images (Brock et al. 2019). DF-GAN
    samples at t = 0.88. None: no truncation, z is drawn from N(0, 1).
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
        images = generator(z, request.text)
        request.step_done(1, 1)
        return images

    def inverts(self, generator: Generator) -> bool:
        return (
            isinstance(generator, OneShotGenerator)
            and generator.inverts
            and self.config.truncation is None
        )

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        assert isinstance(generator, OneShotGenerator)
        return generator.invert(images, request.text)


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
