"""Settings of GALIP."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.gan.config import AFFINE_TINY, PAPER, AffineGANConfig


class GALIPConfig(AffineGANConfig):
    """Settings; the defaults are the authors'. image_size is that of the training images.

    clip: the frozen network in G and D. feature_blocks: whose outputs D sees, prompt_blocks: which get a prompt token;
    both count CLIP's transformer blocks from 1.
    nf: base width of G. z_dim: size of the noise. bridge_width, bridge_middle, bridge_blocks: of Bridge-FP. vit_gain:
    what the ViT's output is multiplied with before it joins the bridge features.
    blocks: G-blocks (None: one for each doubling up to image_size). last_size: what the last block emits, so the size
    of the images drawn (None: image_size).
    judge_width: channels of D's last block. assessor_width: of the quality assessor.
    unit_text: sentences are divided by their length.
    similarity: lambda of CLIP's similarity.
    text_share: part of the budget in which whatever is trainable of text encoder and CLIP is pretrained contrastively
    (neither is with the authors' settings, and there is no such stage). clip_lr, text_lr: of the two in that stage;
    text_batch_size: of its steps (None: batch_size).
    bounded: images end in a tanh, as DF-GAN's do, instead of being cut to [-1, 1] when they are drawn. The paper has
    no such setting (README.md says what it is for).
    """

    clip: ClipVisionConfig = ClipVisionConfig()
    feature_blocks: tuple[int, ...] = (2, 5, 9)
    prompt_blocks: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    nf: int = Field(64, ge=1)
    z_dim: int = Field(100, ge=1)
    bridge_width: int = Field(64, ge=1)
    bridge_middle: int = Field(32, ge=1)
    bridge_blocks: int = Field(4, ge=1, le=MOST_LAYERS)
    vit_gain: float = 0.1
    blocks: int | None = Field(None, ge=1, le=MOST_LAYERS)
    last_size: int | None = Field(224, ge=8)
    judge_width: int = Field(512, ge=1)
    assessor_width: int = Field(128, ge=1)
    unit_text: bool = False
    similarity: float = Field(4.0, ge=0)
    bounded: bool = False
    text_share: float = Field(0.05, gt=0, lt=1)
    clip_lr: float = Field(1e-3, gt=0)
    text_lr: float = Field(1e-4, gt=0)
    text_batch_size: int | None = Field(None, ge=2)

    @field_validator("feature_blocks", "prompt_blocks")
    @classmethod
    def _ascending(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if any(first >= second for first, second in pairwise((0, *blocks))):
            raise ValueError("ascending numbers of CLIP's blocks, the first of which is 1")
        return blocks

    @field_validator("feature_blocks")
    @classmethod
    def _some(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if not blocks:
            raise ValueError("the discriminator must see at least one block")
        return blocks

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.blocks is None and self.image_size & (self.image_size - 1):
            raise ValueError(
                f"image_size ({self.image_size}) must be a power of two where 'blocks' does not say how many"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        clip: tuple[str, Mapping[str, Any]] = ("clip", {})
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1, "width": 64})),
            "cub": Preset(
                {**_PAPER, "steps": 830_000}, ("cub", {}), clip
            ),  # 1,500 epochs of 8,855 images
            "coco": Preset({**_PAPER, "steps": 1_000_000}, ("coco", {}), clip),
            "thesis": Preset(_THESIS, ("webdataset", {}), clip),
        }


_PAPER = {
    **PAPER,
    "batch_size": 16,
    "ema_decay": 0.0,
    "channels_last": True,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}

_THESIS = {
    **_PAPER,
    "image_size": 128,
    "blocks": 6,
    "last_size": 128,
    "batch_size": 256,
    "accumulate": 16,
    "steps": 117_200,  # 100 epochs of 300,000 images
}

_TINY = {
    **AFFINE_TINY,
    "clip": {
        "weights": None, "image_size": 32, "patch": 4, "width": 64, "layers": 3, "heads": 4, "normalise": "once",
    },
    "feature_blocks": (1, 3),
    "prompt_blocks": (2, 3),
    "z_dim": 32,
    "bridge_width": 32,
    "bridge_middle": 16,
    "bridge_blocks": 2,
    "last_size": None,
    "judge_width": 64,
    "assessor_width": 64,
    "text_share": 0.13,
    "bounded": True,
}  # fmt: skip
