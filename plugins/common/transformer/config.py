"""Settings of the diffusion transformer."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS
from t2i.plugins.common.diffusion.config import TextMapConfig


class TransformerConfig(TextMapConfig):
    """Settings of a diffusion transformer. The defaults are the sizes of DiT-B/2."""

    patch: int = Field(2, ge=1)
    """Side of the squares of the input that become one token."""

    width: int = Field(768, ge=4)
    """Width of a token. A multiple of 4, for the sinusoids of two axes, and of `heads`."""

    depth: int = Field(12, ge=1, le=MOST_LAYERS)
    """Number of blocks."""

    heads: int = Field(12, ge=1)
    """Attention heads of each block."""

    mlp_ratio: float = Field(4.0, gt=0)
    """Width of the hidden layer of a block's perceptron, as a multiple of `width`."""

    blocks: Literal["cross", "joint"] = "cross"
    """Kind of the blocks. "cross": DiT's, in which the tokens of the image attend to each other and
    then to the words; "joint": Stable Diffusion 3's, in which image and words attend to each other
    in one attention, each with weights of their own."""

    qk_norm: bool = False
    """Whether queries and keys are divided by their root mean square, head by head. This keeps
    attention from saturating at high learning rates."""

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.width % 4 or self.width % self.heads:
            raise ValueError(
                f"width ({self.width}) must be a multiple of 4 and of heads ({self.heads})"
            )
        return self
