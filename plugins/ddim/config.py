"""Settings of the `ddim` sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.sampler import SamplerConfig


class DDIMConfig(SamplerConfig):
    """eta: share of DDPM's randomness, 0 (deterministic) to 1. spacing: how the `steps` times are chosen among the
    schedule's T: "trailing" begins at pure noise, as sampling does; "leading" is the paper's; "linspace" takes both
    ends."""

    steps: int | None = Field(50, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    spacing: Literal["trailing", "leading", "linspace"] = "trailing"
