"""What diffusion samplers on diffusers' schedulers share: their times, and the wrapped network.

A sampler makes a `TimeGrid`, a scheduler from it, and the `network` that the scheduler calls; then
it loops. `chain.py` has what the loop starts from. All random numbers come from the request's keyed
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from t2i.core.families.continuous import named_schedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import converted
from t2i.core.families.schedule import DiscreteSchedule, Schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.config import (
    DenoisingSettings,
    DiffusionSamplerConfig,
    GuidedConfig,
)
from t2i.plugins.common.diffusion.guidance import guided, guided_range
from t2i.plugins.common.diffusion.time_grid import TimeGrid, time_grid

Network = Callable[[Tensor, int], Tensor]
"""`network(u, index)` returns the prediction (B, ...) at u = x_t / norm (B, ...), where t is time
number `index` of a grid. It is of the kind that the grid names, which is what the grid's scheduler
expects."""

VARIANCES = {"beta": "fixed_large", "beta~": "fixed_small", "learned": "learned_range"}
"""diffusers' name of each variance of the sampler `ddpm`."""


def schedule_of(config: DenoisingSettings) -> Schedule:
    """Return the noise schedule that a model's settings name, or whose betas they list.

    Args:
        config: Settings of the model.

    Returns:
        The schedule.
    """
    if config.trained_betas:
        return DiscreteSchedule(
            torch.tensor(config.trained_betas, dtype=torch.float64, device="cpu")
        )
    return named_schedule(config.schedule, config.timesteps)


class DiffusionSampler(Sampler):
    """Base of the samplers of diffusion models.

    Args:
        config: Settings of the sampler.
    """

    config: DiffusionSamplerConfig

    def grid(self, generator: Generator) -> TimeGrid:
        """Return the times that the sampler visits.

        Args:
            generator: The diffusion generator to sample from.

        Returns:
            The grid of times.

        Raises:
            UserError: The generator's schedule has no such times.
        """
        assert isinstance(generator, DiffusionGenerator)
        return time_grid(generator, self.config)

    def check(self, generator: Generator) -> None:
        self.grid(generator)


def network_of(
    generator: DiffusionGenerator, request: Request, config: GuidedConfig, grid: TimeGrid
) -> Network:
    """Return the guided generator in the form that the grid's scheduler calls.

    Args:
        generator: The network.
        request: Gives the text, the features of no caption and the guide.
        config: Settings of guidance.
        grid: The times that are visited, and the kind of prediction that is expected.

    Returns:
        The network.

    Raises:
        UserError: Guidance needs the features of no caption, and the request has none.
    """
    predict = guided(generator, request, config)

    def network(u: Tensor, index: int) -> Tensor:
        x_t, t = point(grid, u, index)
        output = predict(x_t, t, grid.levels[index])
        return expected(generator, grid, x_t, t, output, index)

    return network


def range_of(
    generator: DiffusionGenerator, request: Request, config: GuidedConfig, grid: TimeGrid
) -> Network:
    """Return a guided generator that predicts variances, in the form that schedulers call.

    Args:
        generator: The network, with `learned_range`.
        request: Gives the text, the features of no caption and the guide.
        config: Settings of guidance.
        grid: The times that are visited, and the kind of prediction that is expected.

    Returns:
        The network. Its output is the prediction, then v (`DiffusionGenerator.ranged`), as channels
        (B, 2C, ...).

    Raises:
        UserError: Guidance needs the features of no caption, and the request has none.
    """
    predict = guided_range(generator, request, config)

    def network(u: Tensor, index: int) -> Tensor:
        x_t, t = point(grid, u, index)
        output, v = predict(x_t, t, grid.levels[index])
        return torch.cat([expected(generator, grid, x_t, t, output, index), v], 1)

    return network


def expected(
    generator: DiffusionGenerator,
    grid: TimeGrid,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    index: int,
) -> Tensor:
    """Convert a generator's output to the prediction that the grid's scheduler expects.

    Args:
        generator: Gives the schedule and the kind of prediction.
        grid: The times that are visited, and the kind of prediction that is expected.
        x_t: Noisy images or latents, float (B, ...).
        t: Timesteps, (B,).
        output: Output of the generator at x_t, float (B, ...).
        index: Number of the time in the grid.

    Returns:
        The prediction, float (B, ...).
    """
    output = converted(generator.schedule, x_t, t, output, generator.prediction, grid.prediction)
    # For u, alpha and sigma are divided by norm, and so is v = alpha eps - sigma x_0.
    return output / grid.norms[index] if grid.prediction == "v" else output


def point(grid: TimeGrid, u: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Return the generator's x_t and t for a scheduler's sample.

    Args:
        grid: The times that are visited.
        u: The scheduler's sample, float (B, ...).
        index: Number of the time in the grid.

    Returns:
        x_t, float (B, ...), and t (B,), int64 for discrete schedules, else float.
    """
    # Indexes give an int64 tensor, real times a float one.
    t = torch.full((len(u),), grid.times[index], device=u.device)
    return u * grid.norms[index], t


def steps_of(scheduler: Any, request: Request) -> Iterator[Any]:
    """Iterate over the scheduler's timesteps, the noisiest first, and report each as done.

    A timestep at which the scheduler calls the network twice appears twice.

    Args:
        scheduler: A scheduler of diffusers whose timesteps are set.
        request: Receives the progress.

    Yields:
        The timesteps.
    """
    for done, timestep in enumerate(scheduler.timesteps, 1):
        yield timestep
        request.step_done(done, len(scheduler.timesteps))


def clipping(clip: float | None) -> dict[str, Any]:
    """Return the settings of diffusers' schedulers that clip predictions of x_0.

    Args:
        clip: Predictions are clipped to [-clip, clip]. None: they are not clipped.

    Returns:
        Keyword arguments of the scheduler.
    """
    return {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}
