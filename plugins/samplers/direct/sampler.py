"""The sampler `direct`: one call of the generator."""

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
"""Where truncated noise is cut, in standard deviations (as in the released code of BigGAN and
DF-GAN)."""


class DirectConfig(UnguidedConfig):
    """Settings of the sampler `direct`. It ignores `steps`."""

    truncation: float | None = Field(None, gt=0, le=1)
    """Factor t of truncated noise, above 0, at most 1. Values of z beyond +-2 are drawn again, then
    z is multiplied by t: less variety, better images (Brock et al. 2019; DF-GAN samples at t =
    0.88). None: plain noise from N(0, 1)."""


class DirectSampler(Sampler):
    """Calls the generator once, with noise `normal("z", 0, noise_shape)`, plain or truncated.

    Args:
        config: Whether and how far to truncate the noise.
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
    """Draw from N(0, 1), and draw values beyond +-BOUND again until there are none.

    Redraw n of an image is `normal("z", n, shape)`, so that an image's noise depends on its key
    only.

    Args:
        noise: Source of random numbers, one row for each image.
        shape: Shape of one image's noise.

    Returns:
        The noise, float32 (B, *shape), within +-BOUND.
    """
    z = noise.normal("z", 0, shape)
    redraw = 0
    while (beyond := z.abs() > BOUND).any():
        redraw += 1
        z = torch.where(beyond, noise.normal("z", redraw, shape), z)
    return z
