"""The sampler `maskgit`: it unmasks tokens in the order of the network's confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.tokens.sampling import Branches, filtered
from t2i.plugins.common.tokens.unmasking import gumbel, masked_left, replaces
from t2i.plugins.samplers.maskgit.config import MaskGITConfig


class MaskGITSampler(Sampler):
    """MaskGIT's parallel decoding.

    Each step samples all masked tokens, then masks again those in which the network has the least
    confidence. gbar(s) is the share of tokens that are masked after the step to timestep s.

    Source: Chang et al. 2022, section 3.2.

    Args:
        config: Settings of the sampler.
    """

    config: MaskGITConfig

    def check(self, generator: Generator) -> None:
        assert isinstance(generator, DiscreteDiffusionGenerator)
        if replaces(generator.schedule, self.config.steps):
            raise UserError(
                "sampler 'maskgit' only unmasks tokens, but this model's schedule also replaces "
                "them: use --sampler discrete"
            )

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiscreteDiffusionGenerator)
        request.refuse(
            "maskgit",
            guide="samples tokens: there is no noisy image that a guide could steer",
            image="starts from masks, not from an image",
        )
        branches = Branches.of(request, self.config.guidance)
        schedule, noise = generator.schedule, request.noise
        times = schedule.times(self.config.steps)
        kept = masked_left(generator.length, schedule.gbar(times))
        x = torch.full((len(noise), generator.length), schedule.mask, device=noise.device)
        for step, left in enumerate(kept):
            rows = branches.rows(x)
            t = times[step].to(noise.device).expand(len(rows))
            logits = filtered(branches.guided(generator(rows, t, branches.text)), self.config)
            drawn = noise.categorical("token", step, logits)
            likely = logits.double().log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            randomness = self.config.randomness * (1 - (step + 1) / len(kept))
            confidence = likely + randomness * gumbel(noise, step, generator.length)
            unsure = confidence.masked_fill(x != schedule.mask, torch.inf).argsort(
                dim=-1, stable=True
            )[:, :left]
            x = torch.where(x == schedule.mask, drawn, x).scatter(-1, unsure, schedule.mask)
            request.step_done(step + 1, len(kept))
        return generator.decode(x)
