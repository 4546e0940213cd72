"""DDIM (Song et al. 2021, eq. 12 and 16; thesis 2.26-2.28), on diffusers' DDIMScheduler, and its inversion."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.sampling import Chain, ChainSampler, clipping, guided
from t2i.plugins.samplers.ddim.config import DDIMConfig


class DDIMSampler(ChainSampler):
    """x_{t-1} = sqrt(abar_{t-1}) x0^ + sqrt(1 - abar_{t-1} - sigma_t^2) eps^ + sigma_t eps, over a subsequence of the
    schedule's times, with sigma_t = eta sqrt((1 - abar_{t-1}) / (1 - abar_t)) sqrt(1 - abar_t / abar_{t-1})."""

    config: DDIMConfig

    def chain(self, generator: Generator) -> Chain:
        return super().chain(generator).ending(generator, self.config.end)

    def scheduler(self, chain: Chain) -> Any:
        scheduler: Any = DDIMScheduler(**chain.settings, **clipping(self.config.clip))
        scheduler.final_alpha_cumprod = torch.tensor(chain.final)
        return scheduler

    def step(self, scheduler: Any, output: Tensor, t: Tensor, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
        eta = self.config.eta
        x: Tensor = scheduler.step(output, int(t), x_t, eta=eta, generator=random, return_dict=False)[0]
        return x

    def inverts(self, generator: Generator) -> bool:
        return True

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """The x_T from which `sample` with eta 0 draws the images, up to the error of the steps: the same ordinary
        differential equation (section 4.3 of the paper) followed from x_0 upwards."""
        assert isinstance(generator, DiffusionGenerator)
        chain = self.chain(generator).as_epsilon()
        scheduler: Any = DDIMInverseScheduler(**chain.settings, **clipping(self.config.clip))
        scheduler.initial_alpha_cumprod = torch.tensor(chain.final)
        scheduler.set_timesteps(len(chain.times))
        network = guided(generator, request, self.config)
        x = generator.encode(images)
        for index, (time, norm) in enumerate(zip(chain.times, chain.norms, strict=True)):
            output = chain.translated(generator.prediction, network(x * norm, time), x, index)
            x = scheduler.step(output, index, x, return_dict=False)[0]
        return x
