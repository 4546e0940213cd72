"""Annealed Langevin dynamics.

Source: Song & Ermon 2019, algorithm 1; Song & Ermon 2020, algorithm 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.chain import latent_mask, steps_of_strength
from t2i.plugins.common.diffusion.guidance import Guided, guided
from t2i.plugins.samplers.langevin.config import LangevinConfig

UNIT = 4.0
"""Factor of step sizes between images in [0, 1], the papers', and ours in [-1, 1]: 2 squared."""


class Level(NamedTuple):
    """A noise level of the chain. The chain moves y = x_t / alpha, whose noise is ratio z.

    Attributes:
        time: The timestep, as the generator's schedule counts it: an index or a real number.
        alpha: alpha(t).
        ratio: sigma(t) / alpha(t).
        noise: The noise level at which guidance is applied, from 0 (clean) to 1 (noise).
        size: Size a of the steps for y.
    """

    time: float
    alpha: float
    ratio: float
    noise: float
    size: float


class Known(NamedTuple):
    """The image that a chain starts from.

    Attributes:
        x_0: The image, encoded, (B, ...).
        noise: Noise of each image, (B, ...).
        mask: Where the chain may change it, bool (B, 1, h, w). None: everywhere.
    """

    x_0: Tensor
    noise: Tensor
    mask: Tensor | None

    def put(self, y: Tensor, ratio: float) -> Tensor:
        """Put back what may not change, as noisy as the rest is.

        Args:
            y: Samples, (B, ...).
            ratio: Their noise level.

        Returns:
            The samples, unchanged where the mask allows changes.
        """
        if self.mask is None:
            return y
        return torch.where(self.mask, y, self.x_0 + ratio * self.noise)


class LangevinSampler(Sampler):
    """Langevin dynamics at each noise level, from the largest to the smallest.

    At each level T times y <- y + a s(y) + sqrt(2 a) z, where a = eps ratio^2 / ratio_L^2. On a
    variance-exploding path y is x_t. On any other, y = x_t / alpha is on one, with the noise level
    ratio = sigma / alpha, and its score is alpha times that of x_t.

    Args:
        config: Settings of the sampler.
    """

    config: LangevinConfig

    def check(self, generator: Generator) -> None:
        assert isinstance(generator, DiffusionGenerator)
        self.levels(generator)

    def levels(self, generator: DiffusionGenerator) -> list[Level]:
        """Return the levels that are visited.

        Args:
            generator: Gives the noise schedule.

        Returns:
            The levels, the noisiest first.

        Raises:
            UserError: The schedule has no such levels, or fewer than two.
        """
        schedule, config = generator.schedule, self.config
        times = schedule.times(
            config.steps, spacing=config.spacing, offset=config.steps_offset, most=config.sigma_max
        ).flip(0)
        exact = times.double()
        alpha = schedule.alpha(exact)
        ratio = schedule.sigma(exact) / alpha
        if len(times) < 2:
            raise UserError(
                "sampler 'langevin' goes from noise level to noise level, and this model has one: "
                "use --sampler ddim"
            )
        noise = schedule.level(exact)
        columns = (times, alpha, ratio, noise, self._sizes(ratio))
        return [Level(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        levels, each = self.levels(generator), self.config.each
        shape = generator.shape_of(request.size)
        noise = request.noise.start("x_T", shape)
        x_0 = None if request.image is None else generator.encode(request.image)
        if x_0 is not None:
            count = steps_of_strength(len(levels), request.strength)
            if not count:
                return generator.decode(x_0)
            levels = levels[-count:]
        known = None if x_0 is None else Known(x_0, noise, latent_mask(request, x_0))
        y = self._start(noise, levels[0].ratio)
        if x_0 is not None and request.strength < 1:
            y = x_0 + levels[0].ratio * noise
        predict = guided(generator, request, self.config)
        for step in range(len(levels) * each):
            level = levels[step // each]
            z = request.noise.normal("langevin", step, shape)
            y = y + level.size * score(generator, predict, y, level)
            y = y + (2 * level.size) ** 0.5 * z
            y = y if known is None else known.put(y, level.ratio)
            request.step_done(step + 1, len(levels) * each)
        if self.config.denoise:
            y = y + levels[-1].ratio ** 2 * score(generator, predict, y, levels[-1])
        y = y if known is None else known.put(y, 0.0)
        return generator.decode(y)

    def _start(self, noise: Tensor, ratio: float) -> Tensor:
        """Turn noise from N(0, I) into what the chain starts from."""
        if self.config.start == "uniform":
            uniform: Tensor = torch.special.ndtr(noise)
            return 2 * uniform - 1
        return ratio * noise

    def _sizes(self, ratio: Tensor) -> Tensor:
        """Return the step sizes for y at the levels, float64 (n,), the noisiest first."""
        config = self.config
        if config.eps is not None:
            share = torch.full_like(ratio, UNIT * config.eps) / ratio[-1] ** 2
        else:
            gamma = ratio[:-1] / ratio[1:]
            gamma = torch.cat([gamma[:1], gamma])  # the first level is no more work than the next
            share = torch.tensor(
                [best_share(round(each, 9), config.each) for each in gamma.tolist()],
                dtype=torch.float64,
            )
        return share * ratio**2 * (0.5 if config.rule == "half" else 1.0)


def score(generator: DiffusionGenerator, predict: Guided, y: Tensor, level: Level) -> Tensor:
    """Compute the guided score of y = x_t / alpha.

    Args:
        generator: Gives the schedule and the kind of prediction.
        predict: The guided generator.
        y: Samples, float (B, ...).
        level: Their noise level.

    Returns:
        grad log p(y), float (B, ...).
    """
    x_t = level.alpha * y
    t = torch.full((len(y),), level.time, device=y.device)
    output = predict(x_t, t, level.noise)
    found = converted(generator.schedule, x_t, t, output, generator.prediction, "score")
    return level.alpha * found


def remaining(share: float, gamma: float, each: int) -> float:
    """Compute the variance after the steps at one level, as a multiple of the level's variance.

    The chain comes from the level above, and the data are one point: s_T^2 / sigma_i^2 =
    (1 - e)^(2T) (gamma^2 - b) + b, where b = 2 e / (1 - (1 - e)^2). The best value is 1.

    Source: Song & Ermon 2020, proposition 3 and technique 4, with e = eps / sigma_L^2.

    Args:
        share: e, the step size at a level over its variance, between 0 and 1.
        gamma: Ratio of the level above to this one, above 1.
        each: Number T of steps.

    Returns:
        The multiple, above 1.
    """
    b = 2 / (2 - share)
    return float((1 - share) ** (2 * each) * (gamma**2 - b) + b)


@lru_cache
def best_share(gamma: float, each: int) -> float:
    """Find the step size that leaves the variance closest to that of the level.

    Source: Song & Ermon 2020, technique 4.

    Args:
        gamma: Ratio of the level above to this one, above 1.
        each: Number T of steps.

    Returns:
        e, the step size over the level's variance, between 0 and 1.
    """
    found = minimize_scalar(
        remaining, bounds=(0, 1), args=(gamma, each), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)
