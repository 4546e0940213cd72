"""Settings of the sampler `optimise`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from t2i.core.interfaces.sampler import UnguidedConfig

STEPS = 500
"""Default number of steps of Adam, that of CLIP-guided VQGAN."""

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimiseConfig(UnguidedConfig):
    """Settings of the sampler of optimised models."""

    steps: int | None = Field(STEPS, ge=1)
    """Number of steps of Adam. None: 500."""

    lr: float = Field(0.1, gt=0)
    """Learning rate of Adam."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's two decay rates, each from 0 to below 1."""

    keep: Literal["last", "best"] = "last"
    """Which latents are decoded: those after the last step, or the best of each image by its score.

    "best" takes one more evaluation of the score.
    """
