"""Settings of the sampler `edm-heun`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.diffusion.config import GuidedConfig


class EDMHeunConfig(GuidedConfig):
    """Settings of the sampler `edm-heun`. Noise levels are sigma / alpha."""

    steps: int | None = Field(18, ge=1)
    """Number of steps N. They take 2 N - 1 calls of the network. None: 18.

    The paper takes 18 for CIFAR-10, 40 for images of 64 pixels, and 256 with churn for ImageNet.
    """

    sigma_min: float = Field(0.002, gt=0)
    """Lowest noise level of a step. A schedule may end earlier."""

    sigma_max: float = Field(80.0, gt=0)
    """Highest noise level, where sampling starts. A schedule may end earlier."""

    rho: float = Field(7.0, gt=0)
    """Exponent of the spacing: the levels are evenly spaced in sigma^(1 / rho)."""

    churn: float = Field(0.0, ge=0)
    """Amount of fresh noise in all, S_churn. 0: the sampler is deterministic.

    A step first raises the noise level by the factor 1 + min(churn / N, sqrt(2) - 1).
    """

    s_min: float = Field(0.0, ge=0)
    """Lowest noise level at which there is fresh noise, S_min."""

    s_max: float | None = Field(None, gt=0)
    """Highest noise level at which there is fresh noise, S_max. None: no bound."""

    s_noise: float = Field(1.0, gt=0)
    """Standard deviation of the fresh noise, S_noise. The paper uses 1.003 and 1.007."""
