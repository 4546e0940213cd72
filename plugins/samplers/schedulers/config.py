"""Settings of the samplers that use diffusers' schedulers."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class SchedulerConfig(DiffusionSamplerConfig):
    """Settings of the samplers that use diffusers' schedulers."""

    steps: int | None = Field(25, ge=1)
    """Number of sampling steps. None: all T steps of the schedule. `heun` and `pndm` call the
    network more often than this."""


class PNDMConfig(SchedulerConfig):
    """Settings of the sampler `pndm`."""

    end: Ending = "x_0"
    """Where the last step ends: at x_0, or at the schedule's first timestep ("first", as in Stable
    Diffusion)."""
