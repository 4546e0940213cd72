"""Settings of the sampler `ddim`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending


class DDIMConfig(DiffusionSamplerConfig):
    """Settings of the sampler `ddim`."""

    steps: int | None = Field(50, ge=1)
    """Number of steps of the chain. None: all steps of the schedule."""

    eta: float = Field(0.0, ge=0, le=1)
    """Randomness of a step, from 0 (deterministic) to 1 (as random as DDPM)."""

    end: Ending = "x_0"
    """Where the last step leads: to x_0, or to the schedule's first timestep ("first").

    Stable Diffusion uses "first". It needs a schedule with discrete timesteps.
    """

    clip: float | None = Field(None, gt=0)
    """Bound of the predictions of x_0, which are clipped to [-clip, clip]. None: no clipping."""
