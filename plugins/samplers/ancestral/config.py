"""Settings of the sampler `ddpm`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.plugins.common.diffusion.config import RespacedConfig


class DDPMSamplerConfig(RespacedConfig):
    """Settings of the ancestral sampler, `ddpm`."""

    steps: int | None = Field(None, ge=1)
    """Number of steps of the chain. None: all T steps of the schedule, as in the paper."""

    clip: float | None = Field(None, gt=0)
    """Bound of the predictions of x_0, which are clipped to [-clip, clip].

    The paper's code clips pixels at 1. None: no clipping, since latents have no bounds.
    """

    variance: Literal["beta", "beta~", "learned"] = "beta~"
    """Variance of a step: beta_t ("beta"), that of the posterior, beta~_t ("beta~"), or one between
    them that the network predicts ("learned").

    The last needs a network that was trained with `learned_range`.

    The first two are the extremes. The paper finds similar results with both (Ho et al. 2020,
    section 3.2).
    """
