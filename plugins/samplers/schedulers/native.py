"""Any scheduler of diffusers as it is: its own timesteps, its own start and its own last step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError, in_one_line, out_of_memory
from t2i.core.families.continuous import FlowSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import THOUSAND, DiscreteSchedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.chain import latent_mask, steps_of_strength
from t2i.plugins.common.diffusion.native import FlowEuler, flow_scheduler, native_scheduler
from t2i.plugins.common.diffusion.sampling import network_of, range_of
from t2i.plugins.common.diffusion.time_grid import AS, Known, TimeGrid
from t2i.plugins.samplers.schedulers.config import NativeConfig


class NativeSampler(Sampler):
    """A sampler that does exactly what diffusers' pipelines do with a scheduler.

    The other samplers here choose the timesteps themselves. This one leaves them to the scheduler,
    which may place them between those of the schedule. It needs discrete timesteps, or the straight
    path of flow matching.

    Args:
        config: Settings of the sampler. A guidance below 1 is none.
    """

    config: NativeConfig

    def __init__(self, config: NativeConfig) -> None:
        super().__init__(config.model_copy(update={"guidance": max(config.guidance, 1.0)}))

    def check(self, generator: Generator) -> None:
        self._scheduler(generator, torch.device("cpu"))

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        noise = request.noise.start("x_T", generator.shape_of(request.size))
        scheduler = self._scheduler(generator, noise.device)
        x_0 = None if request.image is None else generator.encode(request.image)
        first = self._first(scheduler, request)
        times = scheduler.timesteps[first:]
        if x_0 is not None and not len(times):
            return generator.decode(x_0)
        learned = str(scheduler.config.get("variance_type")).startswith("learned")
        network_ = range_of if learned and generator.learned_range else network_of
        network = network_(generator, request, self.config, _grid(generator, scheduler))
        mask = latent_mask(request, noise)
        known = inspect.signature(scheduler.step).parameters
        # One random generator for each image, for all steps. The pipelines pass eta 0.
        step = {"generator": request.noise.generators("chain", 0), "eta": 0.0}
        step = {name: value for name, value in step.items() if name in known}
        x = _start(scheduler, times, noise, None if request.strength == 1 else x_0)
        for index, t in enumerate(times):
            output = network(scheduler.scale_model_input(x, t), first + index)
            x = self._step(scheduler, output, t, x, step)
            if mask is not None and x_0 is not None:
                following = times[index + 1 : index + 2]
                kept = scheduler.add_noise(x_0, noise, following) if len(following) else x_0
                x = torch.where(mask, x, kept)
            request.step_done(index + 1, len(times))
        return generator.decode(x)

    def _step(
        self, scheduler: Any, output: Tensor, t: Tensor, x: Tensor, more: dict[str, Any]
    ) -> Tensor:
        """Take one step of the scheduler. What it raises names its options."""
        try:
            stepped: Tensor = scheduler.step(output, t, x, return_dict=False, **more)[0]
        except Exception as error:  # schedulers check their settings in ways of their own
            if out_of_memory(error):
                raise
            raise UserError(
                f"a step of {self.config.scheduler} with the options {self.config.options}: "
                f"{in_one_line(error)}; correct sampler.options"
            ) from None
        return stepped

    def _first(self, scheduler: Any, request: Request) -> int:
        """Return the number of the first timestep, as diffusers' image-to-image pipelines do."""
        if request.image is None:
            return 0
        steps = self.config.steps or len(scheduler.timesteps)
        skipped = steps - steps_of_strength(steps, request.strength)
        first = min(int(skipped * scheduler.order), len(scheduler.timesteps))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        return first

    def _scheduler(self, generator: Generator, device: torch.device) -> Any:
        """Build the scheduler with its timesteps."""
        assert isinstance(generator, DiffusionGenerator)
        name, schedule, steps = self.config.scheduler, generator.schedule, self.config.steps
        if isinstance(schedule, FlowSchedule):
            scheduler = flow_scheduler(name, self.config.options)
        elif isinstance(schedule, DiscreteSchedule):
            scheduler = native_scheduler(name, self.config.options, schedule, generator.prediction)
            steps = steps or len(schedule)
        else:
            raise UserError(
                "this model's noise levels are continuous, and diffusers' schedulers count steps: "
                "use another sampler, such as ddim"
            )
        if steps is None:
            raise UserError(
                "this model's noise levels are continuous: name a number of sampling steps"
            )
        try:
            scheduler.set_timesteps(steps, device=device)
        except Exception as error:  # schedulers check their settings in ways of their own
            raise UserError(f"{steps} steps of {name}: {in_one_line(error)}") from None
        return scheduler


def _start(scheduler: Any, times: Tensor, noise: Tensor, x_0: Tensor | None) -> Tensor:
    """Return what the chain starts from: noise alone, or an image noised to the first time."""
    if x_0 is None:
        start: Tensor = noise * scheduler.init_noise_sigma
        return start
    noised: Tensor = scheduler.add_noise(x_0, noise, times[:1])
    return noised


def _grid(generator: DiffusionGenerator, scheduler: Any) -> TimeGrid:
    """Describe the scheduler's timesteps, the noisiest first; Heun and others have some twice."""
    flow = isinstance(scheduler, FlowEuler)
    times = scheduler.timesteps.cpu()
    times = times / THOUSAND if flow else times
    exact = times.double()
    kinds: dict[str, Known] = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
    kind = "velocity" if flow else kinds.get(str(scheduler.config.prediction_type))
    return TimeGrid(
        times=tuple(times.tolist()),
        levels=tuple(generator.schedule.level(exact).tolist()),
        abar=tuple(generator.schedule.alpha(exact).square().tolist()),
        norms=(1.0,) * len(times),  # these schedulers work on x_t itself
        prediction=kind or AS[generator.prediction],
    )


native = NativeSampler
