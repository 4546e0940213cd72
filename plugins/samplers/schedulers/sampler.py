"""Samplers on diffusers' schedulers, with one wrapper for all.

A scheduler gets the time grid as its whole schedule.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.chain import Chain
from t2i.plugins.common.diffusion.sampling import DiffusionSampler, network_of, steps_of
from t2i.plugins.common.diffusion.time_grid import TimeGrid, time_grid
from t2i.plugins.samplers.schedulers.config import PNDMConfig, SchedulerConfig


class SchedulerSampler(DiffusionSampler):
    """A sampler on any scheduler of diffusers that visits the given timesteps and ends at x_0.

    A guide shifts the predicted noise.

    Args:
        config: Settings of the sampler.
        scheduler: Class of the scheduler.
        random: Whether the steps of the scheduler add random noise.
        more: Further settings of the scheduler.
    """

    config: SchedulerConfig

    def __init__(
        self, config: SchedulerConfig, scheduler: type[Any], random: bool = False, **more: Any
    ) -> None:
        super().__init__(config)
        self._scheduler, self._random, self._more = scheduler, random, more

    def grid(self, generator: Generator) -> TimeGrid:
        return super().grid(generator).without_sample()

    def scheduler(self, grid: TimeGrid) -> Any:
        """Build the scheduler.

        The schedule is as long as the chain, so the spacing "trailing" takes every step, the last
        one first.

        Args:
            grid: The timesteps of the chain.

        Returns:
            The scheduler, before its `set_timesteps` is called.
        """
        return self._scheduler(**grid.settings, timestep_spacing="trailing", **self._more)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        chain = Chain.of(generator, request, self.grid(generator))
        grid = chain.grid
        if chain.x_0 is not None and not grid:
            return generator.decode(chain.x_0)
        scheduler = self.scheduler(grid)
        scheduler.set_timesteps(len(grid))
        network = network_of(generator, request, self.config, grid)
        # One random generator for each image, for all steps.
        drawn = {"generator": request.noise.generators("chain", 0)} if self._random else {}
        x = chain.start(scheduler)
        for step, t in enumerate(steps_of(scheduler, request)):
            output = network(scheduler.scale_model_input(x, t), int(t))
            x = scheduler.step(output, t, x, return_dict=False, **drawn)[0]
            x = chain.kept(scheduler, x, step)
        return generator.decode(x)


class PNDMSampler(SchedulerSampler):
    """PNDM without the Runge-Kutta steps at the start, as in Stable Diffusion.

    Those steps would take twelve calls of the network.

    Args:
        config: Settings of the sampler.
    """

    config: PNDMConfig

    def __init__(self, config: PNDMConfig) -> None:
        super().__init__(config, PNDMScheduler, skip_prk_steps=True)

    def grid(self, generator: Generator) -> TimeGrid:
        assert isinstance(generator, DiffusionGenerator)
        return time_grid(generator, self.config, self.config.end).without_sample()

    def scheduler(self, grid: TimeGrid) -> Any:
        scheduler = super().scheduler(grid)
        scheduler.final_alpha_cumprod = torch.tensor(grid.final)
        return scheduler


euler = partial(SchedulerSampler, scheduler=EulerDiscreteScheduler)
euler_ancestral = partial(SchedulerSampler, scheduler=EulerAncestralDiscreteScheduler, random=True)
heun = partial(SchedulerSampler, scheduler=HeunDiscreteScheduler)
lms = partial(SchedulerSampler, scheduler=LMSDiscreteScheduler)
pndm = PNDMSampler
dpm_solver_2m = partial(SchedulerSampler, scheduler=DPMSolverMultistepScheduler)
dpm_solver_2m_sde = partial(
    SchedulerSampler,
    scheduler=DPMSolverMultistepScheduler,
    random=True,
    algorithm_type="sde-dpmsolver++",
)
unipc = partial(SchedulerSampler, scheduler=UniPCMultistepScheduler)
