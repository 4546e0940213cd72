"""Settings of the sampler `ddim`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from t2i.plugins.common.diffusion.config import Ending, ThresholdedConfig


class DDIMConfig(ThresholdedConfig):
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

    clipped_eps: bool = False
    """Whether eps is computed anew from the clipped prediction of x_0, as in ADM's code.

    A guide then acts after the clipping. Only with `clip`.
    """

    @model_validator(mode="after")
    def _clips(self) -> Self:
        if self.clipped_eps and self.clip is None:
            raise ValueError("clipped_eps needs clip: set clip=1, or clipped_eps=false")
        return self
