"""The sampler `autoregressive`: it samples one token after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.families.autoregressive import AutoregressiveGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.common.tokens.sampling import Branches, filtered


class AutoregressiveSampler(Sampler):
    """Sample tokens in order, x_i from p(x_i | x_1 .. x_{i-1}, text) at position i.

    The generator keeps the keys and values of earlier positions, so each step computes one token.

    Args:
        config: Settings of the sampler.
    """

    config: TokenSamplerConfig

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, AutoregressiveGenerator)
        request.refuse(
            "autoregressive",
            guide="samples tokens: there is no noisy image that a guide could steer",
            image="samples every token: it does not start from an image",
        )
        branches = Branches.of(request, self.config.guidance)
        logits, state = generator.begin(branches.text)
        tokens: list[Tensor] = []
        for position in range(generator.length):
            if tokens:
                logits, state = generator.next(branches.rows(tokens[-1]), state)
            likely = filtered(branches.guided(logits), self.config)
            tokens.append(request.noise.categorical("token", position, likely))
            request.step_done(position + 1, generator.length)
        return generator.decode(torch.stack(tokens, 1))
