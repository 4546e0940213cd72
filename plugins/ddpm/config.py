"""Settings of the `ddpm` sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.sampler import SamplerConfig


class DDPMSamplerConfig(SamplerConfig):
    """steps: None means all T of the schedule, as in the paper. variance: beta_t or the posterior's beta~_t (section
    3.2 of the paper: the two extremes)."""

    steps: int | None = Field(None, ge=1)
    variance: Literal["beta", "beta~"] = "beta~"
