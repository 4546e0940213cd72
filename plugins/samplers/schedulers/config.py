"""Settings of the samplers that use diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending, GuidedConfig


class SchedulerConfig(DiffusionSamplerConfig):
    """Settings of the samplers that use diffusers' schedulers."""

    steps: int | None = Field(25, ge=1)
    """Number of steps of the chain. None: all steps of the schedule.

    For N steps, `heun` calls the network 2 N - 1 times, and `pndm` N + 1 times.
    """


class PNDMConfig(SchedulerConfig):
    """Settings of the sampler `pndm`."""

    end: Ending = "x_0"
    """Where the last step leads: to x_0, or to the schedule's first timestep ("first").

    Stable Diffusion uses "first". It needs a schedule with discrete timesteps.
    """


class NativeConfig(GuidedConfig):
    """Settings of the sampler `scheduler`."""

    steps: int | None = Field(25, ge=1)
    """Number of steps that the scheduler is asked for. None: all steps of the schedule."""

    guidance: float = 1.0
    """Scale of classifier-free guidance.

    1 or less: no guidance, as in diffusers' pipelines.
    """

    scheduler: str = Field("DPMSolverMultistepScheduler", min_length=1)
    """Class of the scheduler in diffusers."""

    options: Mapping[str, Any] = {}
    """Settings of the scheduler as its scheduler_config.json has them, such as use_karras_sigmas.

    The noise schedule and the kind of prediction are the model's own, and are no options.
    """
