"""DDIM (Song et al. 2021, eq. 12 and 16; thesis 2.26-2.28), on diffusers' DDIMScheduler."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from t2i.core.generator import Generator
from t2i.core.noise import PromptNoise
from t2i.core.sampler import Guide, Progress, Sampler
from t2i.core.text import TextFeatures
from t2i.plugins.common.diffusion import chain_of, guided, run_chain
from t2i.plugins.ddim.config import DDIMConfig


class DDIMSampler(Sampler):
    """x_{t-1} = sqrt(abar_{t-1}) x0^ + sqrt(1 - abar_{t-1} - sigma_t^2) eps^ + sigma_t eps, over a subsequence of the
    schedule's times, with sigma_t = eta sqrt((1 - abar_{t-1}) / (1 - abar_t)) sqrt(1 - abar_t / abar_{t-1})."""

    families = ("diffusion",)
    config: DDIMConfig

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
        config = self.config
        chain = chain_of(generator, config.steps, config.spacing)
        scheduler = DDIMScheduler(**chain.settings, set_alpha_to_one=True)

        def step(scheduler: Any, output: Tensor, i: int, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
            x: Tensor = scheduler.step(output, i, x_t, eta=config.eta, generator=random, return_dict=False)[0]
            return x

        network = guided(generator, text, null, config.guidance, guide)
        return run_chain(generator, scheduler, chain, step, network, noise, progress)
