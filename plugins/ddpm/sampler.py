"""DDPM's ancestral sampling (Ho et al. 2020, algorithm 2; thesis 2.24), on diffusers' DDPMScheduler."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from t2i.core.generator import Generator
from t2i.core.noise import PromptNoise
from t2i.core.sampler import Guide, Progress, Sampler
from t2i.core.text import TextFeatures
from t2i.plugins.common.diffusion import chain_of, guided, run_chain
from t2i.plugins.ddpm.config import DDPMSamplerConfig

VARIANCES = {"beta": "fixed_large", "beta~": "fixed_small"}


class DDPMSampler(Sampler):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + sigma_t z, for all T steps or, over
    fewer, with the betas of the shortened chain."""

    families = ("diffusion",)
    config: DDPMSamplerConfig

    def sample(
        self,
        generator: Generator,
        text: TextFeatures,
        noise: PromptNoise,
        null: TextFeatures | None = None,
        *,
        guide: Guide | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        chain = chain_of(generator, self.config)
        variance = VARIANCES[self.config.variance]
        scheduler = DDPMScheduler(**chain.settings, clip_sample=False, variance_type=variance)

        def step(scheduler: Any, output: Tensor, t: Tensor, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
            x: Tensor = scheduler.step(output, int(t), x_t, generator=random, return_dict=False)[0]
            return x

        network = guided(generator, text, null, self.config, guide)
        return run_chain(generator, scheduler, chain, step, network, noise, progress)
