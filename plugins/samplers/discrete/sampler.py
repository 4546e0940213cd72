"""The sampler `discrete`: ancestral sampling from noisy tokens to clean ones."""

from __future__ import annotations

from torch import Tensor

from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.common.tokens.sampling import Branches, filtered


class DiscreteSampler(Sampler):
    """Ancestral sampling of tokens: x_s from q(x_s | x_t, p(x_0 | x_t)), for timesteps t > s.

    The posterior between any two timesteps is exact. So a chain with fewer steps only skips
    timesteps, without another approximation. Temperature, top_k and top_p act on p(x_0 | x_t).

    Source: VQ-Diffusion (Gu et al. 2022), eq. 11.

    Args:
        config: Settings of the sampler.
    """

    config: TokenSamplerConfig

    def check(self, generator: Generator) -> None:
        assert isinstance(generator, DiscreteDiffusionGenerator)
        generator.schedule.times(self.config.steps)

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
        x = schedule.start(noise, generator.length)
        for step in range(len(times) - 1):
            t, s = times[step : step + 1], times[step + 1 : step + 2]
            rows = branches.rows(x)
            x_0 = filtered(
                branches.guided(generator(rows, t.expand(len(rows)), branches.text)), self.config
            )
            x = noise.categorical("x_s", step, schedule.posterior(x, x_0, s, t))
            request.step_done(step + 1, len(times) - 1)
        return generator.decode(x)
