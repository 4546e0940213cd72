"""Settings of the sampler `ddim`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class DDIMConfig(DiffusionSamplerConfig):
    """Settings of the sampler `ddim`."""

    steps: int | None = Field(50, ge=1)
    """Number of sampling steps. None: all T steps of the schedule."""

    eta: float = Field(0.0, ge=0, le=1)
    """Amount of fresh noise in each step: 0 is deterministic, 1 is as random as `ddpm`."""

    end: Ending = "x_0"
    """Where the last step ends: at x_0, or at the schedule's first timestep ("first", as in Stable
    Diffusion)."""

    clip: float | None = Field(None, gt=0)
    """Limit to which predictions of x_0 are clipped: to [-clip, clip]. None: no clipping."""
