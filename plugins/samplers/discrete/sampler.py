"""The sampler `discrete`: ancestral sampling from noisy tokens to clean ones."""

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
from t2i.plugins.samplers.discrete.config import DiscreteConfig


class DiscreteSampler(Sampler):
    """Ancestral sampling of tokens: x_s from q(x_s | x_t, p(x_0 | x_t)), for timesteps t > s.

    The posterior between any two timesteps is exact. So a chain with fewer steps only skips
    timesteps, without another approximation. Temperature, top_k and top_p act on p(x_0 | x_t).

    Source: VQ-Diffusion (Gu et al. 2022), eq. 11; `order`: Tang et al. 2022.

    Args:
        config: Settings of the sampler.
    """

    config: DiscreteConfig

    def check(self, generator: Generator) -> None:
        assert isinstance(generator, DiscreteDiffusionGenerator)
        generator.schedule.times(self.config.steps)
        if self.config.order != "posterior" and replaces(generator.schedule, self.config.steps):
            raise UserError(
                f"order={self.config.order} of the sampler 'discrete' only unmasks tokens, but "
                "this model's schedule also replaces them: use order=posterior"
            )

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiscreteDiffusionGenerator)
        request.refuse(
            "discrete",
            guide="samples tokens: there is no noisy image that a guide could steer",
            image="starts from noise, not from an image",
        )
        branches = Branches.of(request, self.config.guidance)
        schedule, noise = generator.schedule, request.noise
        times = schedule.times(self.config.steps).to(noise.device)
        left = masked_left(generator.length, schedule.gbar(times))
        x = schedule.start(noise, generator.length)
        if self.config.order != "posterior":
            x = torch.full_like(x, schedule.mask)
        for step in range(len(times) - 1):
            t, s = times[step : step + 1], times[step + 1 : step + 2]
            rows = branches.rows(x)
            x_0 = filtered(
                branches.guided(generator(rows, t.expand(len(rows)), branches.text)), self.config
            )
            if self.config.order == "posterior" or step == len(times) - 2:
                x = noise.categorical("x_s", step, schedule.posterior(x, x_0, s, t))
            else:
                count = (generator.length, *left)[step] - left[step]
                chosen, x_0 = self._chosen(x == schedule.mask, count, x_0, request, step)
                x = torch.where(chosen, noise.categorical("x_s", step, x_0), x)
            request.step_done(step + 1, len(times) - 1)
        return generator.decode(x)

    def _chosen(
        self, masked: Tensor, count: int, x_0: Tensor, request: Request, step: int
    ) -> tuple[Tensor, Tensor]:
        """Choose the tokens that a step unmasks, without replacement, and sharpen their logits.

        Args:
            masked: Which tokens are masked, bool (B, L).
            count: How many tokens of each image.
            x_0: Logits of p(x_0 | x_t), (B, L, K).
            request: The request.
            step: Step of the chain, from 0.

        Returns:
            Which tokens are unmasked, bool (B, L), and the logits (B, L, K).
        """
        order = gumbel(request.noise, step, masked.shape[1])
        if self.config.order == "purity":
            log_p = x_0.double().log_softmax(-1)
            purity = log_p.amax(-1)
            order = order + purity
            score = (purity - purity.amax(1, keepdim=True)).exp()
            x_0 = log_p * (1 + self.config.purity * score)[..., None]
        rank = order.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        chosen = torch.zeros_like(masked)
        return chosen.scatter(1, rank[:, :count], True), x_0
