"""Settings of the sampler `flow-euler`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.plugins.common.diffusion.config import GuidedConfig


class FlowEulerConfig(GuidedConfig):
    """Settings of the sampler `flow-euler`."""

    steps: int | None = Field(28, ge=1)
    """Number of steps N. None: 28, which Stable Diffusion 3 takes.

    Euler's method calls the network N times, Heun's 2 N - 1 times.
    """

    solver: Literal["euler", "heun"] = "euler"
    """Method of a step: "euler", of first order, or "heun", of second order."""

    shift: float = Field(1.0, ge=0.001, le=1000)
    """Shift k of the times: t' = k t / (1 + (k - 1) t). Above 1, more steps are at high noise.

    From 0.001 to 1000. Stable Diffusion 3 uses 3 at 1024 pixels (Esser et al. 2024, eq. 23).
    """
