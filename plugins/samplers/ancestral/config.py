"""Settings of the `ddpm` sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig


class DDPMSamplerConfig(DiffusionSamplerConfig):
    """Settings of the ancestral sampler."""

    steps: int | None = Field(None, ge=1)
    """Steps of the chain. None: all T of the schedule, as in the paper."""

    clip: float | None = Field(None, gt=0)
    """Predictions of x_0 are cut to [-clip, clip], as the paper's code does with pixels, at 1. None: never."""

    variance: Literal["beta", "beta~"] = "beta~"
    """Variance of a step: beta_t, or the posterior's beta~_t (section 3.2 of the paper: the two extremes)."""
