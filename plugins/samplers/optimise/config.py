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

    keep: Literal["last", "best", "average"] = "last"
    """Which latents are decoded: those after the last step, the best of each image by its score, or
    the moving average of all steps.

    "best" takes one more evaluation of the score.
    """

    decay: Decay = 0.99
    """Decay rate of the moving average that `keep=average` decodes."""

    restarts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Numbers of steps after which Adam's averages of gradients begin anew."""
