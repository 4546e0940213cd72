"""Settings of the feature extractors `timm` and `dinov2`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class TimmConfig(Config):
    """Settings of the features `timm`."""

    model: str = Field("resnet50.a1_in1k", min_length=1)
    """Name of the network in timm, with the tag of its weights ("resnet50.a1_in1k")."""
    weights: str | None = Field(None, min_length=1)
    """Weights: a .safetensors file, a folder with model.safetensors, or a name on the hub.

    None: the hub name that timm gives for the tag.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    image_size: int | None = Field(None, ge=8)
    """Side in pixels to which images are resized. None: the network's own."""


class Dinov2Config(TimmConfig):
    """Settings of the features `dinov2`.

    The defaults are those of FD-DINOv2 (Stein et al. 2023): ViT-L/14 at 224. A smaller network is
    vit_small_patch14_dinov2.
    """

    model: str = Field("vit_large_patch14_dinov2.lvd142m", min_length=1)
    """Name of the network in timm, with the tag of its weights."""
    image_size: int | None = Field(224, ge=8)
    """Side in pixels to which images are resized. None: the network's own."""
