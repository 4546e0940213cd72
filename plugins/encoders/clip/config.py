"""Settings of CLIP's text encoder and of its features."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from t2i.core.settings import Config
from t2i.plugins.common.clip.config import ClipFeaturesConfig


class ClipConfig(Config):
    """Settings of the text encoder `clip`.

    The defaults are GALIP's: the projected vector of ViT-B/32.
    """

    weights: str = Field("openai/clip-vit-base-patch32", min_length=1)
    """CLIP's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    tokenizer: str | None = Field(None, min_length=1)
    """Folder or hub name of the tokenizer. None: it is beside the weights."""
    sentence: Literal["projected", "pooled"] = "projected"
    """Which vector of a caption is its sentence vector.

    "projected" is the end-of-text token projected into the space that text shares with images;
    "pooled" is the same token before the projection.
    """
    layer: int = Field(-1, le=-1)
    """Transformer block whose outputs are the word vectors, counted from the end.

    -1 is the last block; -2 is the block before it, as in SDXL.
    """
    final_norm: bool = True
    """Whether CLIP's final layer norm is applied to the word vectors.

    Stable Diffusion applies it; SDXL does not.
    """
    attend_padding: bool = False
    """Whether every caption is padded to all 77 tokens, and all of them may be attended to.

    Stable Diffusion does so.
    """
    pad: int | None = Field(None, ge=0)
    """Id of the token that pads captions. None: the tokenizer's own. VQ-Diffusion pads with 0."""


class ClipB16Config(ClipFeaturesConfig):
    """Settings of the features `clip-vit-b-16`."""

    title: ClassVar[str] = "clip-vit-b-16"
    weights: str = Field("openai/clip-vit-base-patch16", min_length=1)
    """CLIP's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """


class ClipL14Config(ClipFeaturesConfig):
    """Settings of the features `clip-vit-l-14`."""

    title: ClassVar[str] = "clip-vit-l-14"
    weights: str = Field("openai/clip-vit-large-patch14", min_length=1)
    """CLIP's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """
