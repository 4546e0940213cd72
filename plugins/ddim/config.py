"""Settings of the `ddim` sampler."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.settings import DiffusionSamplerConfig


class DDIMConfig(DiffusionSamplerConfig):
    """eta: share of DDPM's randomness, 0 (deterministic) to 1."""

    steps: int | None = Field(50, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
