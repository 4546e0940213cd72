"""Settings of CLIP's image encoder and of its features. This does not import torch."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each colour channel, by which CLIP normalises images in [0, 1]."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of each colour channel that CLIP normalises images in [0, 1] with."""


class ClipVisionConfig(Config):
    """Settings of CLIP's image encoder, which is frozen while the GAN is trained."""

    weights: str | None = Field("openai/clip-vit-base-patch32", min_length=1)
    """Pretrained weights: a name on the Hugging Face hub, or a folder with config.json and
    model.safetensors. The sizes of the network (`image_size`, `patch`, `width`, `layers`, `heads`)
    are then read from there. None: a new network of the sizes below, as wide at its end as the text
    encoder's sentences, which is pretrained contrastively on the data set."""

    revision: str = "main"
    """Branch, tag or commit on the hub."""

    image_size: int = Field(224, ge=8)
    """Height and width of the network's input in pixels, a multiple of `patch`. Images are resized
    to it."""

    patch: int = Field(32, ge=1)
    """Height and width of a patch in pixels."""

    width: int = Field(768, ge=8)
    """Width of the transformer's tokens, a multiple of `heads`."""

    layers: int = Field(12, ge=1, le=MOST_LAYERS)
    """Number of transformer blocks."""

    heads: int = Field(12, ge=1)
    """Attention heads of each block."""

    resize: Literal["nearest", "bicubic"] = "nearest"
    """How images are resized to `image_size`. "nearest": as the authors do. "bicubic": with
    antialiasing, as CLIP was trained."""

    normalise: Literal["once", "twice"] = "twice"
    """How images x in [-1, 1] are normalised. "twice": as the authors do, (0.25 x + 0.75 - mean) /
    std. "once": as CLIP was trained, (0.5 x + 0.5 - mean) / std."""

    @model_validator(mode="after")
    def _parts_are_whole(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch ({self.patch})"
            )
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class ClipFeaturesConfig(Config):
    """Settings of the features `clip`.

    The default is ViT-B/32. Most CLIP scores are computed with it, and GALIP is trained with it.
    """

    title: ClassVar[str] = "clip"
    weights: str = Field("openai/clip-vit-base-patch32", min_length=1)
    """CLIP's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    tokenizer: str | None = Field(None, min_length=1)
    """Folder or hub name of the tokenizer. None: it is beside the weights."""
