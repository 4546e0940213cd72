"""DDPM's ancestral sampling (Ho et al. 2020, algorithm 2; thesis 2.24), on diffusers' DDPMScheduler."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from t2i.plugins.common.diffusion.sampling import Chain, ChainSampler, clipping
from t2i.plugins.models.ddpm.config import DDPMSamplerConfig

VARIANCES = {"beta": "fixed_large", "beta~": "fixed_small"}


class DDPMSampler(ChainSampler):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + sigma_t z, for all T steps or, over
    fewer, with the betas of the shortened chain."""

    config: DDPMSamplerConfig

    def scheduler(self, chain: Chain) -> Any:
        variance = VARIANCES[self.config.variance]
        return DDPMScheduler(**chain.settings, **clipping(self.config.clip), variance_type=variance)

    def step(self, scheduler: Any, output: Tensor, t: Tensor, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
        x: Tensor = scheduler.step(output, int(t), x_t, generator=random, return_dict=False)[0]
        return x
