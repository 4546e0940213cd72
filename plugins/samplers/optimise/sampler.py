"""The sampler `optimise`: Adam maximises the score of the latents."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.families.optimised import OptimisedGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.samplers.optimise.config import STEPS, OptimiseConfig


class OptimiseSampler(Sampler):
    """Maximise the sum of the images' scores with Adam, over the latents.

    The gradient and Adam's moments of a latent depend only on its own image. So no image depends on
    the other images of the batch. The network's parameters get no gradients.

    Args:
        config: Settings of the sampler.
    """

    config: OptimiseConfig

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, OptimisedGenerator)
        request.refuse(
            "optimise",
            guide="climbs the model's own score: there is no noisy image that a guide could steer",
            image="starts from the model's own start, not from an image",
        )
        steps, text, noise = self.config.steps or STEPS, request.text, request.noise
        latents = generator.start(noise).detach().clone()
        adam, mean = self._adam(latents), MovingMean(self.config.decay, latents)
        best, highest = latents, torch.full((len(noise),), -torch.inf, device=latents.device)
        for step in range(steps):
            with torch.enable_grad():
                latents.requires_grad_()
                score = generator.score(latents, text, noise, step)
                (latents.grad,) = torch.autograd.grad(score.sum(), latents)
            best, highest = better(latents, score, best, highest)
            adam.step()
            latents.requires_grad_(False).copy_(generator.constrain(latents.detach()))
            mean.add(latents)
            if step + 1 in self.config.restarts:
                adam = self._adam(latents)
            request.step_done(step + 1, steps)
        if self.config.keep == "average":
            return generator.decode(mean.value)
        if self.config.keep == "last":
            return generator.decode(latents)
        return generator.decode(
            better(latents, generator.score(latents, text, noise, steps), best, highest)[0]
        )

    def _adam(self, latents: Tensor) -> torch.optim.Adam:
        return torch.optim.Adam([latents], self.config.lr, self.config.betas, maximize=True)


class MovingMean:
    """An exponential moving average of latents, without bias towards its start.

    Args:
        decay: Its decay rate.
        first: The first latents, (B, ...).
    """

    def __init__(self, decay: float, first: Tensor) -> None:
        self.decay, self.weight, self.sum = decay, 0.0, torch.zeros_like(first)
        self.add(first)

    def add(self, latents: Tensor) -> None:
        """Add latents.

        Args:
            latents: Latents of the shape of the first ones.
        """
        self.weight = self.decay * self.weight + (1 - self.decay)
        self.sum.lerp_(latents.detach(), 1 - self.decay)

    @property
    def value(self) -> Tensor:
        """The average."""
        return self.sum / self.weight


def better(latents: Tensor, score: Tensor, best: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """Update the best latents of each image.

    Args:
        latents: New latents, (B, ...).
        score: Their scores, (B,).
        best: Best latents so far, (B, ...).
        highest: Their scores, (B,).

    Returns:
        The latents with the higher score, (B, ...), and their scores, (B,). Of equal scores, the
        earlier latents are kept.
    """
    latents, score = latents.detach(), score.detach()
    rises = score > highest
    found = torch.where(rises.view(-1, *[1] * (latents.dim() - 1)), latents, best)
    return found, torch.where(rises, score, highest)
