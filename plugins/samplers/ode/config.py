"""Settings of the sampler `ode`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.families.schedule import MOST_NOISE
from t2i.plugins.common.diffusion.config import LEAST_TOLERANCE, GuidedConfig


class ODEConfig(GuidedConfig):
    """Settings of the sampler `ode`."""

    steps: int | None = Field(None, ge=1)
    """Number of steps of one size, by the Runge-Kutta method of order 4. None: the adaptive method
    chooses the steps.

    A step of one size takes four calls of the network.
    """

    method: Literal["rk45", "rk23"] = "rk45"
    """Adaptive method: "rk45" is of order 5, "rk23" of order 3.

    "rk45" is Dormand and Prince's, which Song et al. 2021 use.
    """

    rtol: float = Field(1e-5, ge=LEAST_TOLERANCE)
    """Relative tolerance of a step of the adaptive method, at least 1e-9."""

    atol: float = Field(1e-5, ge=LEAST_TOLERANCE)
    """Absolute tolerance of a step of the adaptive method, in units of x_0, at least 1e-9."""

    sigma_min: float = Field(0.002, gt=0)
    """Lowest noise level at which the network is called, as sigma / alpha. A schedule may end
    earlier.

    Below it the score is held as it is there.
    """

    sigma_max: float | None = Field(MOST_NOISE, gt=0)
    """Highest noise level to start from, as sigma / alpha. None: no bound, except that the default
    still applies to paths that end without any signal."""
