"""Settings of the sampler `ddpm`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig


class DDPMSamplerConfig(DiffusionSamplerConfig):
    """Settings of the sampler `ddpm`, which is ancestral sampling."""

    steps: int | None = Field(None, ge=1)
    """Number of sampling steps. None: all T steps of the schedule, as in the paper."""

    clip: float | None = Field(None, gt=0)
    """Limit to which predictions of x_0 are clipped: to [-clip, clip]. None: no clipping. The
    paper's code clips pixels at 1."""

    variance: Literal["beta", "beta~"] = "beta~"
    """Variance of the noise in a step: beta_t ("beta") or the posterior's ("beta~"). These are the
    two extremes of section 3.2 of the paper."""
