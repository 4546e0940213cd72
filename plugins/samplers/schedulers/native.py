"""Any scheduler of diffusers as it is: its own timesteps, its own start and its own last step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError, in_one_line
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.native import native_scheduler
from t2i.plugins.common.diffusion.sampling import network_of
from t2i.plugins.common.diffusion.time_grid import AS, Known, TimeGrid
from t2i.plugins.samplers.schedulers.config import NativeConfig


class NativeSampler(Sampler):
    """A sampler that does exactly what diffusers' pipelines do with a scheduler.

    The other samplers here choose the timesteps themselves. This one leaves them to the scheduler,
    which may place them between those of the schedule. It needs discrete timesteps.

    Args:
        config: Settings of the sampler.
    """

    config: NativeConfig

    def check(self, generator: Generator) -> None:
        self._scheduler(generator, torch.device("cpu"))

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        if request.image is not None:
            raise UserError("diffusion samplers start from noise, not from an image")
        noise = request.noise.start("x_T", generator.noise_shape)
        scheduler = self._scheduler(generator, noise.device)
        network = network_of(generator, request, self.config, _grid(generator, scheduler))
        known = inspect.signature(scheduler.step).parameters
        # One random generator for each image, for all steps. The pipelines pass eta 0.
        step = {"generator": request.noise.generators("chain", 0), "eta": 0.0}
        step = {name: value for name, value in step.items() if name in known}
        x = noise * scheduler.init_noise_sigma
        for index, t in enumerate(scheduler.timesteps):
            output = network(scheduler.scale_model_input(x, t), index)
            x = scheduler.step(output, t, x, return_dict=False, **step)[0]
            request.step_done(index + 1, len(scheduler.timesteps))
        return generator.decode(x)

    def _scheduler(self, generator: Generator, device: torch.device) -> Any:
        """Build the scheduler with its timesteps."""
        assert isinstance(generator, DiffusionGenerator)
        name, schedule = self.config.scheduler, generator.schedule
        if not isinstance(schedule, DiscreteSchedule):
            raise UserError(
                "this model's noise levels are continuous, and diffusers' schedulers count steps: "
                "use another sampler, such as ddim"
            )
        scheduler = native_scheduler(name, self.config.options, schedule, generator.prediction)
        try:
            scheduler.set_timesteps(self.config.steps or len(schedule), device=device)
        except Exception as error:  # schedulers check their settings in ways of their own
            raise UserError(f"{self.config.steps} steps of {name}: {in_one_line(error)}") from None
        return scheduler


def _grid(generator: DiffusionGenerator, scheduler: Any) -> TimeGrid:
    """Describe the scheduler's timesteps, the noisiest first; Heun and others have some twice."""
    times = scheduler.timesteps.cpu()
    exact = times.double()
    kinds: dict[str, Known] = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
    return TimeGrid(
        times=tuple(times.tolist()),
        levels=tuple(generator.schedule.level(exact).tolist()),
        abar=tuple(generator.schedule.alpha(exact).square().tolist()),
        norms=(1.0,) * len(times),  # discrete schedules preserve variance
        prediction=kinds.get(str(scheduler.config.prediction_type), AS[generator.prediction]),
    )


native = NativeSampler
