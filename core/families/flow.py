"""The family of normalising flows: an invertible map between data and noise, with its density.

NICE, RealNVP, Glow and TarFlow differ in the map.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.likelihood import LEVELS, Likelihood
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

PIXELS = "pixel values"
"""What a flow on images has the density of (`FlowGenerator.space`)."""


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """How a flow is followed from noise to data or back, beside noise and text.

    Args:
        null: Features of "no caption", as `Generator.condition` returned them. None: no guidance.
        guidance: Scale of classifier-free guidance. 1: none.
        anneal: Whether guidance grows from 0 to `guidance` over the tokens of a sequence.
        parallel: Whether a flow that computes one token after the other computes all at once
            instead, again and again until nothing changes (Jacobi's iteration).
        tolerance: Largest change of a token's value at which such sweeps stop.
    """

    null: TextFeatures | None = None
    guidance: float = 1.0
    anneal: bool = False
    parallel: bool = False
    tolerance: float = 1e-5


PLAIN = FlowRun()
"""No guidance, one token after the other."""


class FlowGenerator(Generator):
    """An invertible map: `generator(noise, text)` returns data, `to_noise` is its inverse.

    Data are pixels, or latents (`encode`, `decode`). The log-density of data x is log N(noise; 0,
    I) + log_det, where noise and log_det are what `to_noise(x, text)` returns.

    Attributes:
        noise_shape: Shape of the noise of one image.
        space: What the density is of: "pixel values" (all of an image, in [-1, 1]), or the name of
            the latents.
        bits: Bits of a value of the images that the density is of. Fewer than 8: the last bits are
            left out, by uniform dequantisation only.
        noise_std: Standard deviation of the Gaussian noise that is added to data in training, so
            that the density is that of noisy data. 0: pixels are dequantised uniformly, and latents
            are as they are.
        guides: Whether the map uses `FlowRun.null` and `guidance`.
        sequential: Whether the map to data computes one token after the other, so that
            `FlowRun.parallel` makes a difference.
    """

    family = "flow"
    tolerance: Tolerance = "statistical"
    noise_shape: tuple[int, ...]
    space: str = PIXELS
    bits: int = 8
    noise_std: float = 0.0
    guides: bool = False
    sequential: bool = False

    @abstractmethod
    def forward(self, noise: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> Tensor:
        """Turn noise into data.

        Args:
            noise: Noise from N(0, I), (B, *noise_shape).
            text: Features of B captions, as `condition` returned them.
            run: Guidance, and how tokens are computed.

        Returns:
            Data, (B, ...).
        """

    @abstractmethod
    def to_noise(
        self, x: Tensor, text: TextFeatures, run: FlowRun = PLAIN
    ) -> tuple[Tensor, Tensor]:
        """Turn data into the noise that `forward` turns into them.

        Args:
            x: Data, (B, ...).
            text: Features of B captions, as `condition` returned them.
            run: Guidance.

        Returns:
            Noise, (B, *noise_shape), and the logarithm of |det d noise / d x| of each image, (B,).
        """

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into data without noise. By default data are the images.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Data, (B, ...).
        """
        return images

    def decode(self, x: Tensor) -> Tensor:
        """Turn data into images. By default data are the images, clamped.

        Args:
            x: Data, (B, ...).

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """
        return x.clamp(-1, 1)

    def log_density(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Compute log p(x | text).

        Args:
            x: Data, (B, ...).
            text: Features of B captions, as `condition` returned them.

        Returns:
            log p, (B,).
        """
        noise, log_det = self.to_noise(x, text)
        return standard_normal_log_prob(noise) + log_det

    def perturbed(self, x: Tensor, noise: Noise) -> tuple[Tensor, float]:
        """Add the noise without which data of few values have no density.

        Pixels are dequantised: x = (k + U) / 2^(bits - 1) - 1 for a level k and U from U[0, 1).
        With `noise_std`, data become x + noise_std eps instead, and levels are 2 / 255 apart.

        Args:
            x: Data without noise, (B, ...), as `encode` returned them.
            noise: Source of random numbers: the draw "dequantise".

        Returns:
            x with noise, and what is added to -log p(x) to measure it in levels, D log(1 / width)
            for D pixel values and the width of a level in x: log 2^(bits - 1) each, or log 127.5
            with `noise_std`. 0 for latents. With uniform noise the sum is an upper bound of -log
            P(k).
        """
        dims, pixels, half = x[0].numel(), self.space == PIXELS, (LEVELS - 1) / 2
        if self.noise_std:
            noisy = x + self.noise_std * noise.normal("dequantise", 0, x.shape[1:]).to(x)
            return noisy, dims * math.log(half) if pixels else 0.0
        if not pixels:
            return x, 0.0
        k = ((x + 1) * half).round().div_(2.0 ** (8 - self.bits)).floor_()
        u = noise.uniform("dequantise", 0, x.shape[1:]).to(x)
        levels = 2.0 ** (self.bits - 1)
        return (k + u) / levels - 1, dims * math.log(levels)

    def denoised(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Remove the noise of noisy data by one step of their score: x + noise_std^2 grad log p(x).

        Source: Zhai et al. 2024, section 2.6 (Tweedie's formula).

        Args:
            x: Noisy data, (B, ...).
            text: Features of B captions, as `condition` returned them.

        Returns:
            The data without noise, (B, ...).
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(x, text).sum(), x)
        return (x + self.noise_std**2 * score).detach()

    def likelihood(self, settings: Mapping[str, Any]) -> Likelihood:
        """Make the exact likelihood of this flow.

        Args:
            settings: Settings by name: there are none.

        Returns:
            The likelihood.

        Raises:
            UserError: A setting is given.
        """
        return FlowLikelihood(self, settings)

    if TYPE_CHECKING:

        def __call__(self, noise: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> Tensor: ...


def standard_normal_log_prob(noise: Tensor) -> Tensor:
    """Compute log N(noise; 0, I).

    Args:
        noise: Noise, (B, ...).

    Returns:
        The logarithms, (B,).
    """
    flat = noise.flatten(1)
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2 * math.pi))


class FlowLikelihood(Likelihood):
    """-log p of images, or of their latents, under a flow, with the noise of its training.

    Args:
        generator: The flow.
        settings: Settings by name: there are none.

    Raises:
        UserError: A setting is given.
    """

    kind = "exact"

    def __init__(self, generator: FlowGenerator, settings: Mapping[str, Any]) -> None:
        if settings:
            raise UserError(f"the likelihood of a flow has no settings, but {sorted(settings)}")
        self.generator = generator

    def nats(self, images: Tensor, text: TextFeatures, noise: Noise) -> Tensor:
        x = images.to(torch.float32) / ((LEVELS - 1) / 2) - 1
        x, volume = self.generator.perturbed(self.generator.encode(x), noise)
        return volume - self.generator.log_density(x, text).double().cpu()

    def dims(self, values: int) -> int:
        return values if self.generator.space == PIXELS else math.prod(self.generator.noise_shape)

    def protocol(self) -> Mapping[str, Any]:
        generator = self.generator
        latents, std = generator.space != PIXELS, generator.noise_std
        return {
            "bit_depth": None if latents else generator.bits,
            "dequantisation": "none" if latents or std else "uniform",
            **({"of": generator.space} if latents else {}),
            **({"noise": f"Gaussian {std:g}"} if std else {}),
        }
