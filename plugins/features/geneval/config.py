"""Settings of GenEval's judge and of its metric."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class GenevalFeaturesConfig(Config):
    """Settings of the features `geneval`."""

    weights: str = Field("facebook/mask2former-swin-small-coco-instance", min_length=1)
    """The detector, a Mask2Former for COCO's 80 classes: a name on the Hugging Face hub, or a
    folder.

    The folder holds config.json and model.safetensors.
    """
    revision: str = "main"
    """Branch, tag or commit of the detector on the hub."""
    clip: str = Field("openai/clip-vit-large-patch14", min_length=1)
    """The CLIP that names colours: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """
    clip_revision: str = "main"
    """Branch, tag or commit of the CLIP on the hub."""
    prompts: str | None = Field(None, min_length=1)
    """Path of the file of prompts with what their images must show. None: the file that `t2i fetch
    geneval-prompts` has downloaded."""
    max_overlap: float = Field(1.0, gt=0, le=1)
    """Overlap from which on the less certain of two objects of one class is removed. It is the
    intersection of the boxes divided by their union. 1: none is removed, as in the published
    scores."""


class GenevalConfig(Config):
    """Settings of the metric `geneval`."""

    features: str = Field("geneval", min_length=1)
    """Registry name of the judge's features."""
