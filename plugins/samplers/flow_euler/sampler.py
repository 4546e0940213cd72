"""Euler's and Heun's method along the straight path.

Source: Liu et al. 2023 (rectified flow), section 2.2; Lipman et al. 2023.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import MOST_NOISE
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.denoiser import Denoiser, Start
from t2i.plugins.samplers.flow_euler.config import FlowEulerConfig

STEPS = 28  # Stable Diffusion 3's


class FlowEulerSampler(Sampler):
    """Steps in the time t of the straight path z = (1 - t) x_0 + t eps, with dz / dt = eps - x_0.

    Models of other schedules are sampled on the straight path that is equivalent to theirs: z = x_t
    / (alpha + sigma) at t = sigma / (alpha + sigma).

    Source: Liu et al. 2023, section 2.2; shift of the times: Esser et al. 2024, eq. 23.

    Args:
        config: Settings of the sampler.
    """

    config: FlowEulerConfig

    def times(self, generator: Generator) -> list[float]:
        """Choose the times of the steps.

        They are evenly spaced before the shift. The first is the end of the path; for predictions
        that do not determine x_0 without signal it is that of `MOST_NOISE`.

        Args:
            generator: The diffusion generator to sample from.

        Returns:
            Times, descending from at most 1, with 0 as the last.
        """
        assert isinstance(generator, DiffusionGenerator)
        most = generator.schedule.max_ratio
        if math.isinf(most) and generator.prediction in ("epsilon", "score"):
            most = MOST_NOISE
        first = 1.0 if math.isinf(most) else most / (1 + most)
        steps, k = self.config.steps or STEPS, self.config.shift
        even = [1 - i / steps for i in range(steps + 1)]
        return [first * k * t / (1 + (k - 1) * t) for t in even]

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        start, denoise = Start.of(generator, request), Denoiser(generator, request, self.config)
        times = start.rest(self.times(generator))
        z = start.u(_ratio(times[0])) * _scale(times[0])
        for number, (t, following) in enumerate(pairwise(times)):
            slope = _velocity(denoise, z, t)
            tried = z + (following - t) * slope
            if self.config.solver == "heun" and following:
                slope = (slope + _velocity(denoise, tried, following)) / 2
                tried = z + (following - t) * slope
            scale = _scale(following)
            z = start.kept(tried / scale, _ratio(following)) * scale
            request.step_done(number + 1, len(times) - 1)
        return generator.decode(z.float())


def _ratio(t: float) -> float:
    """Return sigma / alpha at a time of the straight path."""
    return t / (1 - t) if t < 1 else math.inf


def _scale(t: float) -> float:
    """Return sqrt(alpha^2 + sigma^2) of the straight path."""
    return math.hypot(1 - t, t)


def _velocity(denoise: Denoiser, z: Tensor, t: float) -> Tensor:
    """Compute eps - x_0 at a time of the straight path."""
    ratio = torch.full((len(z),), _ratio(t), dtype=torch.float64)
    x_0, eps = denoise(z / _scale(t), ratio)
    return eps - x_0
