"""Settings of the samplers on diffusers' schedulers."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.settings import DiffusionSamplerConfig


class SchedulerConfig(DiffusionSamplerConfig):
    """steps: of the chain; heun and pndm call the network more often than that."""

    steps: int | None = Field(25, ge=1)
