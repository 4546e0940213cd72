"""Settings of the samplers on diffusers' schedulers."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class SchedulerConfig(DiffusionSamplerConfig):
    """steps: of the chain; heun and pndm call the network more often than that."""

    steps: int | None = Field(25, ge=1)


class PNDMConfig(SchedulerConfig):
    """end: what the last step leads to, x_0 or the schedule's first time (Stable Diffusion's habit)."""

    end: Ending = "x_0"
