"""Settings of causal transformers over tokens. This does not import torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

Attention = Literal["full", "row", "column", "conv"]
"""Which image tokens before it an image token attends to; it attends to all of the text."""


class TransformerConfig(Config):
    """Sizes of a causal transformer, minGPT's. The defaults are taming's for faces."""

    width: int = Field(1024, ge=2)
    """Width of a token. A multiple of `heads`."""

    layers: int = Field(24, ge=1, le=MOST_LAYERS)
    """Number of layers."""

    heads: int = Field(16, ge=1)
    """Number of attention heads."""

    attention: tuple[Attention, ...] = ("full",)
    """Attention of the layers among image tokens, in order and from the start again: "full", "row"
    (those of a row before, down to the place above), "column" (those above), or "conv" (those of a
    square of side `kernel` around). DALL-E: row, column, row, row."""

    last_attention: Attention | None = None
    """Attention of the last layer, if it is another one. DALL-E: "conv". None: it is not."""

    kernel: int = Field(11, ge=1)
    """Side of the square of "conv", an odd number of tokens."""

    embedding_std: float = Field(0.02, gt=0)
    """Standard deviation of the first embeddings of tokens. Small networks learn faster from larger
    ones."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if not self.attention:
            raise ValueError("attention: name one kind at least, such as full")
        if self.kernel % 2 == 0:
            raise ValueError(
                f"kernel ({self.kernel}) must be odd: a token and as many on each side"
            )
        return self

    @property
    def kinds(self) -> tuple[Attention, ...]:
        """The attention of each layer."""
        count = len(self.attention)
        kinds = [self.attention[i % count] for i in range(self.layers)]
        if self.last_attention is not None:
            kinds[-1] = self.last_attention
        return tuple(kinds)
