"""A guided generator at any ratio of noise to signal, for samplers that step on their own.

Every Gaussian path is the same path in other coordinates. With s = sigma / alpha and theta =
arctan(s), a point on it is written as one of these:

    x_t = alpha x_0 + sigma eps              what the network sees
    u = x_t / sqrt(alpha^2 + sigma^2)        = cos(theta) x_0 + sin(theta) eps
    y = x_t / alpha                          = x_0 + s eps                      (EDM)
    z = x_t / (alpha + sigma)                = (1 - r) x_0 + r eps, r = s / (1 + s)  (flow matching)

Samplers here hold u, and change to y or z where their paper does. The probability flow (Song et al.
2021, eq. 13) is du / dtheta = cos(theta) eps - sin(theta) x_0, dy / ds = eps, dz / dr = eps - x_0,
where x_0 and eps are those that the network predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted
from t2i.core.families.schedule import MOST_NOISE, Schedule, like
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.chain import latent_mask, steps_of_strength
from t2i.plugins.common.diffusion.config import GuidedConfig
from t2i.plugins.common.diffusion.guidance import guided


class Denoiser:
    """Predicts x_0 and eps at any ratio of noise to signal, with guidance.

    Discrete schedules are interpolated between their indexes. Ratios outside the schedule are moved
    to its ends.

    Args:
        generator: The network.
        request: Gives the text, the features of no caption and the guide.
        config: Settings of guidance.

    Raises:
        UserError: Guidance needs the features of no caption, and the request has none.
    """

    def __init__(
        self, generator: DiffusionGenerator, request: Request, config: GuidedConfig
    ) -> None:
        self.schedule, self.prediction = generator.schedule, generator.prediction
        self._predict = guided(generator, request, config)
        self._interval = config.guidance_interval

    def __call__(self, u: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Predict x_0 and eps.

        Args:
            u: Noisy images or latents, float (B, ...).
            ratio: sigma / alpha of each, float64 (B,), on the CPU. inf is allowed where the path
                ends without signal, and the prediction is not "epsilon" or "score".

        Returns:
            x_0 and eps, (B, ...) each, in the type of `u`.
        """
        exact = self.schedule.time_of(ratio)
        level = self.schedule.level(exact)
        norm = torch.hypot(self.schedule.alpha(exact), self.schedule.sigma(exact))
        t = exact.to(u.dtype).to(u.device)
        x_t = u * like(norm.to(u.dtype).to(u.device), u)
        output = self._guided(x_t.float(), t.float(), level).to(u.dtype)
        x_0 = converted(self.schedule, x_t, t, output, self.prediction, "sample")
        return x_0, converted(self.schedule, x_t, t, output, self.prediction, "epsilon")

    def _guided(self, x_t: Tensor, t: Tensor, level: Tensor) -> Tensor:
        """Call the network. Images may lie on both sides of the ends of the guidance interval."""
        least, most = self._interval
        inside = (level >= least) & (level <= most)
        first = self._predict(x_t, t, float(level[0]))
        if bool((inside == inside[0]).all()):
            return first
        other = self._predict(x_t, t, float(level[inside != inside[0]][0]))
        same = (inside == inside[0]).to(x_t.device).view(-1, *[1] * (x_t.dim() - 1))
        return torch.where(same, first, other)


def least_ratio(schedule: Schedule) -> float:
    """Return sigma / alpha at the least noisy timestep of a schedule.

    Args:
        schedule: The path.

    Returns:
        The ratio; 0 for paths that begin at x_0.
    """
    t = schedule.time_of(torch.zeros(1, dtype=torch.float64))
    return float(schedule.sigma(t) / schedule.alpha(t))


def largest_ratio(schedule: Schedule, wanted: float | None) -> float:
    """Return sigma / alpha at which a chain begins.

    Args:
        schedule: The path.
        wanted: The ratio that is wanted. None: the end of the path, or `MOST_NOISE` if it ends
            without signal.

    Returns:
        The ratio, at most that of the path's end.
    """
    bound = (
        (MOST_NOISE if math.isinf(schedule.max_ratio) else math.inf) if wanted is None else wanted
    )
    return min(schedule.max_ratio, bound)


def exact_type(device: torch.device) -> torch.dtype:
    """Return the type in which samplers hold their images between calls of the network.

    Args:
        device: Where the images are.

    Returns:
        float64, or float32 on Apple's GPUs, which have no float64.
    """
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Start:
    """What a sampler starts from: noise alone, or the image of a request.

    Args:
        noise: Noise of each image from N(0, I), (B, *shape).
        x_0: The image, encoded, (B, *shape). None: there is no image.
        mask: Where images may change, bool (B, 1, h, w). None: everywhere.
        strength: Share of the chain that is sampled, from 0 to 1; 1 starts from noise alone.
    """

    noise: Tensor
    x_0: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0

    @classmethod
    def of(cls, generator: DiffusionGenerator, request: Request) -> Start:
        """Read what a request starts from.

        Args:
            generator: Encodes the image, and gives the shape of the noise.
            request: Gives the noise, the image, its mask and the strength.

        Returns:
            The start.
        """
        noise = request.noise.start("x_T", generator.shape_of(request.size))
        noise = noise.to(exact_type(noise.device))
        if request.image is None:
            return cls(noise)
        x_0 = generator.encode(request.image).to(noise.dtype)
        return cls(noise, x_0, latent_mask(request, x_0), request.strength)

    def rest(self, ratios: Sequence[float]) -> list[float]:
        """Return the part of a chain that is sampled.

        Args:
            ratios: sigma / alpha of the chain, descending, with 0 as the last.

        Returns:
            The ratios from which the sampler goes on, at least the last one.

        Raises:
            UserError: The strength is above 0, but below that of one step.
        """
        steps = steps_of_strength(len(ratios) - 1, self.strength)
        return list(ratios[len(ratios) - 1 - steps :])

    def u(self, ratio: float) -> Tensor:
        """Return the first point of a chain.

        Args:
            ratio: sigma / alpha there.

        Returns:
            u: the noise, or the noised image, (B, *shape).
        """
        return self.noise if self.strength == 1 else self.known(ratio)

    def known(self, ratio: float) -> Tensor:
        """Noise the image.

        Args:
            ratio: sigma / alpha, from 0.

        Returns:
            u, (B, *shape).
        """
        assert self.x_0 is not None
        theta = math.atan(ratio)
        return math.cos(theta) * self.x_0 + math.sin(theta) * self.noise

    def kept(self, u: Tensor, ratio: float) -> Tensor:
        """Put back what may not change, as noisy as the rest is.

        Source: Lugmayr et al. 2022 (RePaint), equation 8, without its resampling.

        Args:
            u: Noisy images, (B, *shape).
            ratio: Their sigma / alpha.

        Returns:
            u, unchanged where the mask allows changes.
        """
        return u if self.mask is None else torch.where(self.mask, u, self.known(ratio))
