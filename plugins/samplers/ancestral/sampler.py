"""DDPM's ancestral sampling, on diffusers' DDPMScheduler.

Source: Ho et al. 2020, algorithm 2; thesis 2.24.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.chain import Chain
from t2i.plugins.common.diffusion.sampling import (
    VARIANCES,
    DiffusionSampler,
    clipping,
    network_of,
    point,
    range_of,
    steps_of,
)
from t2i.plugins.common.diffusion.thresholding import bounded, bounding
from t2i.plugins.common.diffusion.time_grid import TimeGrid
from t2i.plugins.samplers.ancestral.config import DDPMSamplerConfig

SMALLEST = 1e-20
"""Least variance whose logarithm is taken, as in diffusers."""


class DDPMSampler(DiffusionSampler):
    """Ancestral sampling of a diffusion model, from pure noise to x_0.

    x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + Sigma_t^(1/2) z

    The chain has all T steps of the schedule, or fewer, with the betas of the shortened chain.
    A guide with gradient g moves the mean by Sigma_t g.

    Source: Ho et al. 2020, algorithm 2; Dhariwal & Nichol 2021, algorithm 1 (guide); Nichol &
    Dhariwal 2021, eq. 15 (learned variance).

    Args:
        config: Settings of the sampler.
    """

    config: DDPMSamplerConfig

    def grid(self, generator: Generator) -> TimeGrid:
        return bounded(super().grid(generator), self.config)

    def check(self, generator: Generator) -> None:
        super().check(generator)
        assert isinstance(generator, DiffusionGenerator)
        if self.config.variance == "learned" and not generator.learned_range:
            raise UserError(
                "variance = learned: this model predicts no variance (learned_range): use "
                "variance=beta~ or variance=beta"
            )

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        self.check(generator)
        chain, guide = Chain.of(generator, request, self.grid(generator)), request.guide
        grid = chain.grid
        if chain.x_0 is not None and not grid:
            return generator.decode(chain.x_0)
        variance_type = VARIANCES[self.config.variance]
        scheduler = grid.exact(
            DDPMScheduler(
                **grid.settings, **clipping(self.config.clip), variance_type=variance_type
            )
        )
        scheduler.set_timesteps(len(grid))
        learned = self.config.variance == "learned"
        unguided, network_ = replace(request, guide=None), range_of if learned else network_of
        network = network_(generator, unguided, self.config, grid)
        network = bounding(network, generator.noise_shape[0], self.config)
        random = request.noise.generators("chain", 0)  # one for each image, for all steps
        x = chain.start(scheduler)
        for step, t in enumerate(steps_of(scheduler, request)):
            index, before = int(t), x
            output = network(x, index)
            x = scheduler.step(output, index, x, generator=random, return_dict=False)[0]
            if guide is not None:
                gradient = grid.norms[index] * guide(
                    *point(grid, before, index), request.text
                )  # with respect to u = x_t / norm
                x = x + self._variance(grid, index, output) * gradient
            x = chain.kept(scheduler, x, step)
        return generator.decode(x)

    def _variance(self, grid: TimeGrid, index: int, output: Tensor) -> float | Tensor:
        """Return Sigma, the variance of a step: beta_t, beta~_t, or the learned one.

        beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t). Sigma is 0 for the last step, which adds
        no noise, unless it is learned: log(beta~) of the last step is then that of the step before.
        """
        beta, posterior = self._extremes(grid, index)
        if self.config.variance == "learned":
            least = posterior if index or len(grid) == 1 else self._extremes(grid, 1)[1]
            k = (output.chunk(2, 1)[1] + 1) / 2
            return torch.exp(k * math.log(beta) + (1 - k) * math.log(max(least, SMALLEST)))
        if index == 0:
            return 0.0
        return beta if self.config.variance == "beta" else posterior

    @staticmethod
    def _extremes(grid: TimeGrid, index: int) -> tuple[float, float]:
        """Return beta_t and beta~_t of a step of the chain."""
        abar, before = grid.abar[index], grid.abar[index - 1] if index else 1.0
        beta = 1 - abar / before
        return beta, beta * (1 - before) / (1 - abar)
