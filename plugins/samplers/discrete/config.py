"""Settings of the sampler `discrete`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.plugins.common.tokens.config import TokenSamplerConfig


class DiscreteConfig(TokenSamplerConfig):
    """Settings of the sampler of discrete diffusion models.

    VQ-Diffusion's truncation, written top0.86r in its code, is `top_p` = 0.86.
    """

    order: Literal["posterior", "random", "purity"] = "posterior"
    """Which tokens a step unmasks. "posterior": each with its own probability, the exact posterior.
    "random": a fixed number of them, at random. "purity": a fixed number, drawn in proportion to
    the largest probability of their places (Tang et al. 2022). The last two need a schedule that
    only masks."""

    purity: float = Field(0.0, ge=0)
    """Weight r by which pure places are sharpened, with order "purity" (Tang et al. 2022, eq. 11).

    Logits are multiplied by 1 + r times the place's purity, relative to the purest place. 0: off.
    """
