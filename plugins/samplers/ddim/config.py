"""Settings of the `ddim` sampler."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class DDIMConfig(DiffusionSamplerConfig):
    """Settings of DDIM."""

    steps: int | None = Field(50, ge=1)
    """Steps of the chain. None: all of the schedule's."""

    eta: float = Field(0.0, ge=0, le=1)
    """Share of DDPM's randomness, from 0 (deterministic) to 1."""

    end: Ending = "x_0"
    """What the last step leads to: x_0, or the schedule's first time (Stable Diffusion's habit)."""

    clip: float | None = Field(None, gt=0)
    """Predictions of x_0 are cut to [-clip, clip]. None: never."""
