"""Settings of the extractors `timm` and `dinov2`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class TimmConfig(Config):
    """model: timm's name of the network, with the tag of its weights ("resnet50.a1_in1k").
    weights: a .safetensors file, a folder with model.safetensors, or a name on the hub (None: timm's own for the tag).
    revision: branch, tag or commit on the hub. image_size: side that images are resized to (None: the network's own).
    """

    model: str = Field("resnet50.a1_in1k", min_length=1)
    weights: str | None = Field(None, min_length=1)
    revision: str = "main"
    image_size: int | None = Field(None, ge=8)


class Dinov2Config(TimmConfig):
    """The defaults are those of FD-DINOv2 (Stein et al. 2023): ViT-L/14 at 224. Lighter: vit_small_patch14_dinov2."""

    model: str = Field("vit_large_patch14_dinov2.lvd142m", min_length=1)
    image_size: int | None = Field(224, ge=8)
