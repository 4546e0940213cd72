"""What the diffusion samplers share, on diffusers' schedulers: the network wrapped once, the beginning of a chain.

A sampler makes a `TimeGrid`, a scheduler of it, and the `network` that the scheduler calls; then it loops. Every random
number comes from the keyed source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted
from t2i.core.families.schedule import DiscreteSchedule, Schedule, named_schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.config import DenoisingConfig, DiffusionSamplerConfig
from t2i.plugins.common.diffusion.guidance import guided
from t2i.plugins.common.diffusion.time_grid import TimeGrid, time_grid

Network = Callable[[Tensor, int], Tensor]
"""network(u (B, ...), index) -> the prediction at u = x_t / norm, t being the grid's time `index`: as the grid says,
which is what its scheduler expects."""


def schedule_of(config: DenoisingConfig) -> Schedule:
    """The noise schedule that a model's settings name, or whose betas they list."""
    if config.trained_betas:
        return DiscreteSchedule(
            torch.tensor(config.trained_betas, dtype=torch.float64, device="cpu")
        )
    return named_schedule(config.schedule, config.timesteps)


class DiffusionSampler(Sampler):
    """A sampler of diffusion models."""

    config: DiffusionSamplerConfig

    def grid(self, generator: Generator) -> TimeGrid:
        """The times that it visits. UserError if the generator's schedule has no such ones."""
        assert isinstance(generator, DiffusionGenerator)
        return time_grid(generator, self.config)

    def check(self, generator: Generator) -> None:
        self.grid(generator)


def network_of(
    generator: DiffusionGenerator, request: Request, config: DiffusionSamplerConfig, grid: TimeGrid
) -> Network:
    """The guided generator, as a scheduler of the grid calls it."""
    predict, schedule = guided(generator, request, config), generator.schedule

    def network(u: Tensor, index: int) -> Tensor:
        x_t, t = point(grid, u, index)
        output = predict(x_t, t, grid.levels[index])
        output = converted(schedule, x_t, t, output, generator.prediction, grid.prediction)
        # In u, alpha and sigma are divided by norm, and with them v = alpha eps - sigma x_0.
        return output / grid.norms[index] if grid.prediction == "v" else output

    return network


def point(grid: TimeGrid, u: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """x_t (B, ...) and t (B,) of the generator, where a scheduler is at u (B, ...) and the grid's time `index`."""
    t = torch.full(
        (len(u),), grid.times[index], device=u.device
    )  # of indexes: long; of real times: float
    return u * grid.norms[index], t


def started(generator: DiffusionGenerator, request: Request, scheduler: Any) -> Tensor:
    """What a chain begins with (B, *noise_shape): N(0, I), in the scheduler's own size.

    Raises:
        UserError: the request has an image to start from.
    """
    if request.image is not None:
        raise UserError("diffusion samplers start from noise, not from an image")
    x = request.noise.start("x_T", generator.noise_shape)
    if scheduler.init_noise_sigma != 1:  # it works on x_t / alpha, whose noise is of sigma / alpha
        x = x * (float(scheduler.init_noise_sigma) ** 2 + 1) ** 0.5
    return x


def steps_of(scheduler: Any, request: Request) -> Iterator[Any]:
    """The scheduler's timesteps, the noisiest first; each is reported when it is done. One whose steps call the network
    twice comes twice."""
    for done, timestep in enumerate(scheduler.timesteps, 1):
        yield timestep
        request.step_done(done, len(scheduler.timesteps))


def clipping(clip: float | None) -> dict[str, Any]:
    """How diffusers' schedulers are told to cut predictions of x_0 to [-clip, clip], or not to."""
    return {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}
