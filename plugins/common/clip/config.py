"""Settings of CLIP's image half. Light: no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation, by colour channel, with which CLIP's images in [0, 1] are normalised."""


class ClipVisionConfig(Config):
    """The image half of CLIP, frozen while the GAN is trained.

    weights: a name on the Hugging Face hub, or a folder with config.json and model.safetensors; the sizes below are
    then read from there. None: a fresh network of these sizes, ending in the text encoder's width, which is pretrained
    contrastively on the data set. revision: branch, tag or commit on the hub.
    image_size, patch: pixels. width, layers, heads: of the transformer.
    resize: how images become `image_size` (the authors': nearest; CLIP's own: bicubic, antialiased).
    normalise: "twice" as the authors do, (0.25 x + 0.75 - mean) / std, or "once" as CLIP was trained,
    (0.5 x + 0.5 - mean) / std, for x in [-1, 1].
    """

    weights: str | None = Field("openai/clip-vit-base-patch32", min_length=1)
    revision: str = "main"
    image_size: int = Field(224, ge=8)
    patch: int = Field(32, ge=1)
    width: int = Field(768, ge=8)
    layers: int = Field(12, ge=1, le=MOST_LAYERS)
    heads: int = Field(12, ge=1)
    resize: Literal["nearest", "bicubic"] = "nearest"
    normalise: Literal["once", "twice"] = "twice"

    @model_validator(mode="after")
    def _parts_are_whole(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch ({self.patch})"
            )
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self
