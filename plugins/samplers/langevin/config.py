"""Settings of the sampler `langevin`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.interfaces.sampler import MOST_STEPS
from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig


class LangevinConfig(DiffusionSamplerConfig):
    """Settings of annealed Langevin dynamics."""

    steps: int | None = Field(None, ge=2)
    """Number of noise levels that are visited, at least 2. None: all levels of the model."""

    each: int = Field(5, ge=1, le=MOST_STEPS)
    """Steps T at each noise level."""

    eps: float | None = Field(None, gt=0)
    """Step size at the smallest noise level, for images in [0, 1] as in the papers. At other levels
    it grows with sigma^2. None: NCSNv2's technique 4, which follows from `each` and the ratios of
    the levels."""

    rule: Literal["full", "half"] = "full"
    """What a step of size a is. "full": x + a s + sqrt(2 a) z, as in NCSNv2 and the code of NCSN;
    "half": x + a/2 s + sqrt(a) z, as in the paper of NCSN."""

    start: Literal["gaussian", "uniform"] = "gaussian"
    """What the chain starts from: noise of the largest level, or, as in the authors' code, values
    that are uniform between black and white."""

    denoise: bool = True
    """Whether a last step removes the noise of the smallest level, x + sigma^2 s(x), as in NCSNv2.
    """
