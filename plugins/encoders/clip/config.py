"""Settings of the `clip` text encoder."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from t2i.core.settings import Config


class ClipConfig(Config):
    """Settings. The defaults are GALIP's: the projected vector of ViT-B/32.

    weights: a name on the Hugging Face hub, or a folder with config.json, model.safetensors and the tokenizer's files.
    revision: branch, tag or commit on the hub. tokenizer: folder or hub name of the tokenizer, where it is elsewhere.
    sentence: "projected" into the space shared with images, or "pooled", the end-of-text token before the projection.
    layer: whose output the words are, counted from the end (-1: the last block; -2: the one before, as in SDXL).
    final_norm: whether the words pass CLIP's final layer norm (Stable Diffusion: yes; SDXL: no).
    attend_padding: every caption has all (77) tokens, and all may be attended to, as in Stable Diffusion.
    """

    weights: str = Field("openai/clip-vit-base-patch32", min_length=1)
    revision: str = "main"
    tokenizer: str | None = Field(None, min_length=1)
    sentence: Literal["projected", "pooled"] = "projected"
    layer: int = Field(-1, le=-1)
    final_norm: bool = True
    attend_padding: bool = False


class ClipFeaturesConfig(Config):
    """Of the features `clip`: ViT-B/32, which CLIP scores are mostly given with, and which GALIP is trained with.

    weights: a name on the Hugging Face hub, or a folder with config.json, model.safetensors and the tokenizer's files.
    revision: branch, tag or commit on the hub. tokenizer: folder or hub name of the tokenizer, where it is elsewhere.
    """

    title: ClassVar[str] = "clip"
    weights: str = Field("openai/clip-vit-base-patch32", min_length=1)
    revision: str = "main"
    tokenizer: str | None = Field(None, min_length=1)


class ClipB16Config(ClipFeaturesConfig):
    """Of the features `clip-vit-b-16`."""

    title: ClassVar[str] = "clip-vit-b-16"
    weights: str = Field("openai/clip-vit-base-patch16", min_length=1)


class ClipL14Config(ClipFeaturesConfig):
    """Of the features `clip-vit-l-14`."""

    title: ClassVar[str] = "clip-vit-l-14"
    weights: str = Field("openai/clip-vit-large-patch14", min_length=1)
