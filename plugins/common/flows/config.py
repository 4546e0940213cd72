"""Settings that normalising flows share."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from t2i.plugins.common.diffusion.config import SpaceConfig, TextMapConfig

MAP: dict[str, Any] = {
    "text_map": 32, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False,
    "outline": 0.5,
}  # fmt: skip
"""A spatial map of the words, for the small presets."""


class FlowConfig(SpaceConfig):
    """Settings of a normalising flow on pixels, or on the latents of a pretrained autoencoder.

    `caption_dropout` is 0: only flows with guidance need it.
    """

    caption_dropout: float = Field(0.0, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance, 0 to 1."""

    bits: int = Field(8, ge=1, le=8)
    """Bits of a pixel value: 8, or fewer, as in Glow's 5, with uniform dequantisation. Latents
    ignore it."""

    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of the Gaussian noise that is added to data in training. Pixels lie in
    [-1, 1]. 0: pixels are dequantised by uniform noise, and latents are used as they are."""

    text: TextMapConfig = TextMapConfig()
    """The spatial map of the text, which joins the input of every coupling or token."""

    text_affine: bool = False
    """Whether the flow begins with an affine map of the data whose shift and scale depend on the
    text map alone. With it a flow knows within minutes what belongs where. Where there is guidance,
    it is part of each block instead, so that it is guided too. It is ours."""

    @model_validator(mode="after")
    def _map_for_affine(self) -> Self:
        if self.text_affine and not self.text.text_map:
            raise ValueError("text_affine needs a text map: set text.text_map above 0")
        return self

    @model_validator(mode="after")
    def _bits_are_dequantised(self) -> Self:
        if self.bits < 8 and self.noise_std and not self.autoencoder:
            raise ValueError(
                "bits below 8 are left out by uniform dequantisation: set noise_std=0, or bits=8"
            )
        return self

    @property
    def side(self) -> int:
        """Height and width of what flows."""
        return self.image_size // self.ratio
