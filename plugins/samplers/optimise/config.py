"""Settings of the `optimise` sampler."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from t2i.core.interfaces.sampler import UnguidedConfig

STEPS = 500
"""Of Adam, where nothing names another number: CLIP-guided VQGAN's."""

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimiseConfig(UnguidedConfig):
    """steps: of Adam. lr: its learning rate. betas: its decay rates.
    keep: which latents are decoded, those after the last step, or each image's best by its score."""

    steps: int | None = Field(STEPS, ge=1)
    lr: float = Field(0.1, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    keep: Literal["last", "best"] = "last"
