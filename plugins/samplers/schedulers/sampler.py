"""Samplers on diffusers' schedulers, all by one wrapper: a scheduler is given a chain as its whole schedule."""

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

from t2i.core.interfaces.generator import Generator
from t2i.plugins.common.diffusion.sampling import Chain, ChainSampler
from t2i.plugins.samplers.schedulers.config import PNDMConfig, SchedulerConfig


class SchedulerSampler(ChainSampler):
    """Any scheduler of diffusers that ends at x_0 and visits the times it is told. random: whether its steps draw
    noise. more: its own settings."""

    config: SchedulerConfig

    def __init__(self, config: SchedulerConfig, scheduler: type[Any], random: bool = False, **more: Any) -> None:
        super().__init__(config)
        self._scheduler, self._random, self._more = scheduler, random, more

    def chain(self, generator: Generator) -> Chain:
        return super().chain(generator).as_epsilon()

    def scheduler(self, chain: Chain) -> Any:
        # Of a schedule as long as the chain, "trailing" is every step, the last one first.
        return self._scheduler(**chain.settings, timestep_spacing="trailing", **self._more)

    def step(self, scheduler: Any, output: Tensor, t: Tensor, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
        drawn = {"generator": random} if self._random else {}
        x: Tensor = scheduler.step(output, t, x_t, return_dict=False, **drawn)[0]
        return x


class PNDMSampler(SchedulerSampler):
    """Without the Runge-Kutta steps at the start, as Stable Diffusion has it: they cost twelve calls of the network."""

    config: PNDMConfig

    def __init__(self, config: PNDMConfig) -> None:
        super().__init__(config, PNDMScheduler, skip_prk_steps=True)

    def chain(self, generator: Generator) -> Chain:
        return super().chain(generator).ending(generator, self.config.end)

    def scheduler(self, chain: Chain) -> Any:
        scheduler = super().scheduler(chain)
        scheduler.final_alpha_cumprod = torch.tensor(chain.final)
        return scheduler


euler = partial(SchedulerSampler, scheduler=EulerDiscreteScheduler)
euler_ancestral = partial(SchedulerSampler, scheduler=EulerAncestralDiscreteScheduler, random=True)
heun = partial(SchedulerSampler, scheduler=HeunDiscreteScheduler)
lms = partial(SchedulerSampler, scheduler=LMSDiscreteScheduler)
pndm = PNDMSampler
dpm_solver_2m = partial(SchedulerSampler, scheduler=DPMSolverMultistepScheduler)
dpm_solver_2m_sde = partial(
    SchedulerSampler, scheduler=DPMSolverMultistepScheduler, random=True, algorithm_type="sde-dpmsolver++"
)
unipc = partial(SchedulerSampler, scheduler=UniPCMultistepScheduler)
