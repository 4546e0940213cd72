"""DDIM and its inversion, on diffusers' schedulers.

Source: Song et al. 2021, eq. 12 and 16; thesis 2.26-2.28.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted, shifted_by_score
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.chain import Chain
from t2i.plugins.common.diffusion.guidance import guided
from t2i.plugins.common.diffusion.sampling import (
    DiffusionSampler,
    Network,
    clipping,
    expected,
    network_of,
    point,
    steps_of,
)
from t2i.plugins.common.diffusion.thresholding import bounded, bounding
from t2i.plugins.common.diffusion.time_grid import TimeGrid, time_grid
from t2i.plugins.samplers.ddim.config import DDIMConfig


class DDIMSampler(DiffusionSampler):
    """DDIM, over a subsequence of the schedule's timesteps.

    x_{t-1} = sqrt(abar_{t-1}) x0^ + sqrt(1 - abar_{t-1} - sigma_t^2) eps^ + sigma_t eps, with
    sigma_t = eta sqrt((1 - abar_{t-1}) / (1 - abar_t)) sqrt(1 - abar_t / abar_{t-1})

    Source: Song et al. 2021, eq. 12 and 16.

    Args:
        config: Settings of the sampler.
    """

    config: DDIMConfig

    def grid(self, generator: Generator) -> TimeGrid:
        assert isinstance(generator, DiffusionGenerator)
        return bounded(time_grid(generator, self.config, self.config.end), self.config)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        chain, eta = Chain.of(generator, request, self.grid(generator)), self.config.eta
        grid = chain.grid
        if chain.x_0 is not None and not grid:
            return generator.decode(chain.x_0)
        rederived = self.config.clipped_eps
        clip = None if rederived else self.config.clip  # else the network clips
        scheduler = grid.exact(DDIMScheduler(**grid.settings, **clipping(clip)))
        scheduler.final_alpha_cumprod = torch.tensor(grid.final, dtype=torch.float64)
        scheduler.set_timesteps(len(grid))
        network = (self._clipped if rederived else self._plain)(generator, request, grid)
        random = request.noise.generators("chain", 0)  # one for each image, for all steps
        x = chain.start(scheduler)
        for step, t in enumerate(steps_of(scheduler, request)):
            output = network(x, int(t))
            x = scheduler.step(output, int(t), x, eta=eta, generator=random, return_dict=False)[0]
            x = chain.kept(scheduler, x, step)
        return generator.decode(x)

    def _plain(self, generator: DiffusionGenerator, request: Request, grid: TimeGrid) -> Network:
        network = network_of(generator, request, self.config, grid)
        return bounding(network, generator.noise_shape[0], self.config)

    def _clipped(self, generator: DiffusionGenerator, request: Request, grid: TimeGrid) -> Network:
        """Return the network with clipped predictions of x_0, which a guide then shifts."""
        predict = guided(generator, replace(request, guide=None), self.config)
        schedule, kind, bound = generator.schedule, generator.prediction, self.config.clip
        assert bound is not None

        def network(u: Tensor, index: int) -> Tensor:
            x_t, t = point(grid, u, index)
            x_0 = converted(
                schedule, x_t, t, predict(x_t, t, grid.levels[index]), kind, "sample"
            ).clamp(-bound, bound)
            output = converted(schedule, x_t, t, x_0, "sample", kind)
            if request.guide is not None:
                gradient = request.guide(x_t, t, request.text)
                output = shifted_by_score(schedule, kind, x_t, t, output, gradient)
            return expected(generator, grid, x_t, t, output, index)

        return network

    def inverts(self, generator: Generator) -> bool:
        return True

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """Return the noise x_T from which `sample` with eta 0 makes these images.

        The ordinary differential equation of `sample` is followed from x_0 upwards (Song et al.
        2021, section 4.3). The result is exact up to the error of the finite steps.

        Args:
            generator: The diffusion model, in evaluation mode.
            images: Images in [-1, 1], (B, 3, H, W).
            request: Its text, null and guide belong to the images; its noise is not read.

        Returns:
            The noise, (B, *noise_shape).

        Raises:
            UserError: The schedule has no such timesteps.
        """
        assert isinstance(generator, DiffusionGenerator)
        grid = self.grid(generator).without_sample()
        scheduler = grid.exact(DDIMInverseScheduler(**grid.settings, **clipping(self.config.clip)))
        scheduler.initial_alpha_cumprod = torch.tensor(grid.final, dtype=torch.float64)
        scheduler.set_timesteps(len(grid))
        network = network_of(generator, request, self.config, grid)
        x = generator.encode(images)
        for index in range(len(grid)):
            x = scheduler.step(network(x, index), index, x, return_dict=False)[0]
        return x
