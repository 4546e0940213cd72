"""The chain of one request: from noise alone, or from an image that is noised part of the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.time_grid import TimeGrid


@dataclass(frozen=True)
class Chain:
    """The times that a request visits, and what its samples start from.

    A request with an image visits the less noisy times only: `strength` of them, rounded down. This
    shorter chain is a whole chain of its own, so every scheduler begins it as it begins any other.
    Source: Meng et al. 2022 (SDEdit), algorithm 1.

    Args:
        grid: The times that are visited.
        noise: Noise of each image from N(0, I), (B, *shape).
        x_0: The image, encoded, (B, *shape). None: there is no image.
        fresh: Whether the samples start from noise alone.
        mask: Where x may change, bool (B, 1, h, w). None: everywhere.
    """

    grid: TimeGrid
    noise: Tensor
    x_0: Tensor | None = None
    fresh: bool = True
    mask: Tensor | None = None

    @classmethod
    def of(cls, generator: DiffusionGenerator, request: Request, grid: TimeGrid) -> Chain:
        """Make the chain of a request.

        Args:
            generator: Encodes the image, and gives the shape of the noise.
            request: Gives the noise, the image, its mask and the strength.
            grid: The times of a chain from noise alone.

        Returns:
            The chain.

        Raises:
            UserError: The strength is above 0, but below that of one step.
        """
        noise = request.noise.start("x_T", generator.shape_of(request.size))
        if request.image is None:
            return cls(grid, noise)
        x_0 = generator.encode(request.image)
        steps = steps_of_strength(len(grid), request.strength)
        mask = latent_mask(request, x_0)
        return cls(grid.first(steps), noise, x_0, request.strength == 1, mask)

    def start(self, scheduler: Any) -> Tensor:
        """Return what the chain starts from, scaled as the scheduler expects.

        Args:
            scheduler: A scheduler of diffusers whose timesteps are set.

        Returns:
            The noise, or the noised image, float (B, *shape).
        """
        if not self.fresh:
            return self._noised(scheduler, len(self.grid) - 1)
        if not _scaled(scheduler):
            return self.noise
        scale: float = (float(scheduler.init_noise_sigma) ** 2 + 1) ** 0.5
        return self.noise * scale

    def kept(self, scheduler: Any, x: Tensor, step: int) -> Tensor:
        """Put back what may not change, as noisy as the rest is after a step.

        Source: Lugmayr et al. 2022 (RePaint), equation 8, without its resampling.

        Args:
            scheduler: The scheduler.
            x: Its sample after the step, float (B, *shape).
            step: Number of the step, from 0.

        Returns:
            The sample, unchanged where the mask allows changes.
        """
        if self.mask is None or self.x_0 is None:
            return x
        following = scheduler.timesteps[step + 1 :]
        known = self._noised(scheduler, int(following[0])) if len(following) else self.x_0
        return torch.where(self.mask, x, known)

    def _noised(self, scheduler: Any, index: int) -> Tensor:
        """Noise the image to time number `index` of the grid."""
        assert self.x_0 is not None
        abar = self.grid.abar[index]
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        u = alpha * self.x_0 + sigma * self.noise
        return u / alpha if _scaled(scheduler) else u


def latent_mask(request: Request, x: Tensor) -> Tensor | None:
    """Return the mask of a request at the size of x_t.

    Args:
        request: The request.
        x: A tensor of that size, (B, C, h, w).

    Returns:
        Where x may change, bool (B, 1, h, w). None: everywhere.
    """
    if request.mask is None:
        return None
    return F.interpolate(request.mask.float(), size=x.shape[2:]) > 0.5


def steps_of_strength(steps: int, strength: float) -> int:
    """Return how many steps of a chain an image goes through, as diffusers counts them.

    Args:
        steps: Steps of the whole chain.
        strength: Share of the chain, from 0 to 1.

    Returns:
        The number, rounded down; 0 for strength 0.

    Raises:
        UserError: It would be 0 although the strength is not.
    """
    count = min(int(steps * strength), steps)
    if strength and not count:
        raise UserError(
            f"strength {strength:g} of {steps} steps is less than one step: use strength "
            f"{1 / steps:.2g} or more, or more steps"
        )
    return count


def _scaled(scheduler: Any) -> bool:
    """Return whether a scheduler works on x_t / alpha."""
    return bool(scheduler.init_noise_sigma != 1)
