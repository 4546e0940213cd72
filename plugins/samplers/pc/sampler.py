"""Predictor-corrector sampling of the reverse stochastic equation.

Source: Song et al. 2021, section 4.2, algorithms 2 to 5, and appendix G.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule, Schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.plugins.common.diffusion.denoiser import Start
from t2i.plugins.common.diffusion.sampling import DiffusionSampler, network_of
from t2i.plugins.common.diffusion.time_grid import TimeGrid, time_grid
from t2i.plugins.samplers.pc.config import PCConfig

STEPS = 1000  # the paper's N

Score = Callable[[Tensor, int], Tensor]
"""`score(x, index)` returns the score (B, ...) at x_t (B, ...) and time number `index`."""


@dataclass(frozen=True)
class Step:
    """One step of the reverse chain, from a noise level to the next lower one.

    The forward step is x_i = a x_{i-1} + b z, so that a^2 = 1 - beta_i for variance-preserving
    paths, and b^2 = sigma_i^2 - sigma_{i-1}^2 for variance-exploding ones. The forward equation at
    the level is dx = f x dt + g dw.

    Args:
        alpha: alpha_i.
        sigma: sigma_i.
        a: alpha_i / alpha_{i-1}.
        b: Standard deviation of the forward step.
        before: sigma_{i-1}; 0 for the step to x_0.
        drift: f times the length of the step.
        diffusion: g^2 times the length of the step.
    """

    alpha: float
    sigma: float
    a: float
    b: float
    before: float
    drift: float
    diffusion: float


def chain_steps(schedule: Schedule, grid: TimeGrid) -> list[Step]:
    """List the steps of a chain, the least noisy first.

    Args:
        schedule: The path.
        grid: The times that are visited.

    Returns:
        A step from each time to the one before it; the first leads to x_0.
    """
    t = torch.tensor(grid.times, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    d_alpha, d_sigma = schedule.rates(t)
    f = d_alpha / alpha
    g_2 = 2 * sigma * d_sigma - 2 * f * sigma.square()
    steps, before = [], (1.0, 0.0, 0.0)
    for i, time in enumerate(t.tolist()):
        alpha_i, sigma_i = float(alpha[i]), float(sigma[i])
        a = alpha_i / before[0]
        b = math.sqrt(max(sigma_i**2 - (a * before[1]) ** 2, 0.0))
        length = time - before[2]
        steps.append(
            Step(alpha_i, sigma_i, a, b, before[1], float(f[i]) * length, float(g_2[i]) * length)
        )
        before = (alpha_i, sigma_i, time)
    return steps


class PCSampler(DiffusionSampler):
    """Predictor and corrector in turns, on any path.

    With s the score at x_i, and z from N(0, I), a predictor leads to the next lower level by

        reverse-diffusion   (2 - a) x_i + b^2 s + b z                        eq. 46
        ancestral           (x_i + b^2 s) / a + b (sigma_{i-1} / sigma_i) z  eq. 47 and 4
        euler-maruyama      x_i - (f x_i - g^2 s) dt + g sqrt(dt) z

    and the corrector stays at its level: x + e s + sqrt(2 e) z, e = 2 a^2 (r sqrt(D) / ||s||)^2
    for D values in an image. The last step leads to x_0 and adds no noise.

    Source: Song et al. 2021, algorithms 2 to 5.

    Args:
        config: Settings of the sampler.
    """

    config: PCConfig

    def grid(self, generator: Generator) -> TimeGrid:
        assert isinstance(generator, DiffusionGenerator)
        config, discrete = self.config, isinstance(generator.schedule, DiscreteSchedule)
        if config.steps is None and not discrete:
            config = config.model_copy(update={"steps": STEPS})
        return replace(time_grid(generator, config), prediction="epsilon")

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        start, grid = Start.of(generator, request), self.grid(generator)
        steps = chain_steps(generator.schedule, grid)
        ratios = [step.sigma / step.alpha for step in reversed(steps)]
        count = len(start.rest([*ratios, 0.0])) - 1
        if not count:
            return generator.decode(start.known(0.0).float())
        steps, network = steps[:count], network_of(generator, request, self.config, grid)

        def score(x: Tensor, index: int) -> Tensor:
            u = x / math.hypot(steps[index].alpha, steps[index].sigma)
            return -network(u.float(), index).to(x) / steps[index].sigma

        x = self._started(start, steps[-1])
        for index in reversed(range(count)):
            if self.config.order == "code" or self._ends_here or index < count - 1:
                x = self._corrected(x, index, steps[index], score, request)
            x = self._predicted(x, index, steps[index], score, request)
            x = self._kept(start, x, steps, index)
            request.step_done(count - index, count)
        return generator.decode(x.float())

    def _started(self, start: Start, step: Step) -> Tensor:
        """Return x at the noisiest level."""
        return start.u(step.sigma / step.alpha) * math.hypot(step.alpha, step.sigma)

    def _kept(self, start: Start, x: Tensor, steps: list[Step], index: int) -> Tensor:
        """Put back what may not change, at the level that a step led to."""
        alpha, sigma = (steps[index - 1].alpha, steps[index - 1].sigma) if index else (1.0, 0.0)
        norm = math.hypot(alpha, sigma)
        return start.kept(x / norm, sigma / alpha) * norm

    def _corrected(
        self, x: Tensor, index: int, step: Step, score: Score, request: Request
    ) -> Tensor:
        """Take the Langevin steps at a noise level. The last level's last one adds no noise."""
        last = self.config.corrector_steps - 1 if not index and self._ends_here else -1
        for number in range(self.config.corrector_steps):
            s = score(x, index)
            share = self.config.snr * math.sqrt(s[0].numel()) / s.flatten(1).norm(dim=1)
            e = (2 * (step.a * share) ** 2).view(-1, *[1] * (x.dim() - 1))
            x = x + e * s
            if number != last:
                x = x + (2 * e).sqrt() * _z(request, f"corrector {number}", index, x)
        return x

    @property
    def _ends_here(self) -> bool:
        """Whether the corrector makes the last step."""
        return self.config.predictor == "none"

    def _predicted(
        self, x: Tensor, index: int, step: Step, score: Score, request: Request
    ) -> Tensor:
        """Take the predictor's step. The one to x_0 adds no noise."""
        kind = self.config.predictor
        if kind == "none":
            return x
        s = score(x, index)
        if kind == "ancestral":
            mean, std = (x + step.b**2 * s) / step.a, step.b
            if self.config.variance == "beta~":
                std = step.b * step.before / step.sigma
        elif kind == "euler-maruyama" and index:
            mean, std = x - step.drift * x + step.diffusion * s, math.sqrt(step.diffusion)
        else:  # also the step to x_0 of "euler-maruyama": rates may be infinite there
            mean, std = (2 - step.a) * x + step.b**2 * s, step.b
        return mean + std * _z(request, "predictor", index, x) if index else mean


def _z(request: Request, name: str, index: int, x: Tensor) -> Tensor:
    """Draw noise for one step of the chain."""
    return request.noise.normal(name, index, x.shape[1:]).to(x)
