"""Settings of the sampler `pc`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig


class PCConfig(DiffusionSamplerConfig):
    """Settings of the predictor-corrector sampler, `pc`."""

    steps: int | None = Field(None, ge=1)
    """Number of steps N, each with one call for the predictor and `corrector_steps` for the
    corrector. None: all T steps of a discrete schedule, 1000 of a continuous one."""

    predictor: Literal["reverse-diffusion", "ancestral", "euler-maruyama", "none"] = (
        "reverse-diffusion"
    )
    """How a step leads to the next noise level. "none": the corrector alone does."""

    variance: Literal["beta", "beta~"] = "beta~"
    """Variance of a step of the predictor "ancestral": that of the posterior ("beta~") or that of
    the forward step ("beta").

    Song et al. 2021 take "beta~" for VE (eq. 47), "beta" for VP (eq. 4).
    """

    corrector_steps: int = Field(1, ge=0)
    """Steps of Langevin dynamics at each noise level. 0: no corrector."""

    snr: float = Field(0.16, gt=0)
    """Signal-to-noise ratio r of the corrector, which sets the size of its steps.

    The paper takes 0.16 for CIFAR-10, 0.075 for images of 256 pixels, 0.15 for 1024.
    """

    order: Literal["code", "paper"] = "code"
    """What comes first at a noise level: the corrector, as in the authors' code, or the predictor,
    as in the paper's algorithms."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.predictor == "none" and not self.corrector_steps:
            raise ValueError("predictor=none needs a corrector: set corrector_steps above 0")
        return self
