"""Settings of the samplers on diffusers' schedulers."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class SchedulerConfig(DiffusionSamplerConfig):
    """Settings of the samplers on diffusers' schedulers."""

    steps: int | None = Field(25, ge=1)
    """Steps of the chain. None: all of the schedule's. heun and pndm call the network more often than that."""


class PNDMConfig(SchedulerConfig):
    """Settings of PNDM."""

    end: Ending = "x_0"
    """What the last step leads to: x_0, or the schedule's first time (Stable Diffusion's habit)."""
