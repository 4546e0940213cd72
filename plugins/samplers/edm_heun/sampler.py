"""EDM's stochastic sampler.

Source: Karras et al. 2022, algorithm 2.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.denoiser import Denoiser, Start, least_ratio
from t2i.plugins.samplers.edm_heun.config import EDMHeunConfig

STEPS = 18  # the paper's for CIFAR-10


class EDMHeunSampler(Sampler):
    """Heun's method in y = x_t / alpha over s = sigma / alpha, with fresh noise before each step.

    y^ = y + sqrt(s^^2 - s^2) S_noise z, s^ = s (1 + gamma), then dy / ds = (y - D(y, s)) / s from
    s^ to the next level. The last step leads to s = 0 without a correction.

    Source: Karras et al. 2022, algorithm 2 and eq. 5.

    Args:
        config: Settings of the sampler.
    """

    config: EDMHeunConfig

    def check(self, generator: Generator) -> None:
        self.levels(generator)

    def levels(self, generator: Generator) -> list[float]:
        """Choose the noise levels of the steps.

        Args:
            generator: The diffusion generator to sample from.

        Returns:
            sigma / alpha, descending, with 0 as the last.

        Raises:
            UserError: The lowest level is not below the highest.
        """
        assert isinstance(generator, DiffusionGenerator)
        config, schedule = self.config, generator.schedule
        most = min(config.sigma_max, schedule.max_ratio)
        least = max(config.sigma_min, least_ratio(schedule))
        steps = config.steps or STEPS
        if least >= most:
            raise UserError(
                f"sigma_min ({least:.3g} with this model's schedule) must be below sigma_max "
                f"({most:.3g}): change one of them"
            )
        first, last = most ** (1 / config.rho), least ** (1 / config.rho)
        share = 1 / max(steps - 1, 1)
        return [*((first + i * share * (last - first)) ** config.rho for i in range(steps)), 0.0]

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        start, denoise = Start.of(generator, request), Denoiser(generator, request, self.config)
        levels = start.rest(self.levels(generator))
        y = start.u(levels[0]) * math.hypot(1, levels[0])
        for number, (s, following) in enumerate(pairwise(levels)):
            y, s = self._churned(y, s, request, number, generator.schedule.max_ratio)
            slope = _eps(denoise, y, s)
            tried = y + (following - s) * slope
            if following:
                slope = (slope + _eps(denoise, tried, following)) / 2
                tried = y + (following - s) * slope
            scale = math.hypot(1, following)
            y = start.kept(tried / scale, following) * scale
            request.step_done(number + 1, len(levels) - 1)
        return generator.decode(y.float())

    def _churned(
        self, y: Tensor, s: float, request: Request, number: int, most: float
    ) -> tuple[Tensor, float]:
        """Add fresh noise before a step, but none beyond the end of the schedule."""
        config = self.config
        bound = math.inf if config.s_max is None else config.s_max
        if not config.churn or not config.s_min <= s <= bound:
            return y, s
        gamma = min(config.churn / (config.steps or STEPS), math.sqrt(2) - 1)
        raised = max(s, min(s * (1 + gamma), most))  # rounding may put s above the end
        z = request.noise.normal("churn", number, y.shape[1:]).to(y.dtype)
        return y + math.sqrt(raised**2 - s**2) * config.s_noise * z, raised


def _eps(denoise: Denoiser, y: Tensor, s: float) -> Tensor:
    """Compute (y - D(y, s)) / s, which is the predicted eps."""
    ratio = torch.full((len(y),), s, dtype=torch.float64)
    return denoise(y / math.hypot(1, s), ratio)[1]
