"""Settings of GALIP."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.gan.config import (
    AFFINE_TINY,
    PAPER,
    QUICK,
    SHAPES_TEXT,
    WIDE,
    AffineGANConfig,
    quick_batch,
)
from t2i.plugins.common.sizing import by_memory


class GALIPConfig(AffineGANConfig):
    """Settings of GALIP. The defaults are those of the authors' code.

    `image_size` is the size of the training images. The size of the generated images is
    `last_size`.
    """

    clip: ClipVisionConfig = ClipVisionConfig()
    """The frozen CLIP that generator, discriminator and similarity share."""

    feature_blocks: tuple[int, ...] = (2, 5, 9)
    """CLIP blocks whose outputs the discriminator sees. Ascending, counted from 1; at least one."""

    prompt_blocks: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    """CLIP blocks that get a prompt token in the generator. Ascending, counted from 1; may be
    empty."""

    nf: int = Field(64, ge=1)
    """Base width of the generator: the channels of its last block."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector of an image."""

    bridge_width: int = Field(64, ge=1)
    """Channels of the bridge feature predictor (Bridge-FP) between its blocks."""

    bridge_middle: int = Field(32, ge=1)
    """Channels in the middle of a Bridge-FP block."""

    bridge_blocks: int = Field(4, ge=1, le=MOST_LAYERS)
    """Number of Bridge-FP blocks."""

    vit_gain: float = 0.1
    """Factor of the ViT's output before it is added to the bridge features."""

    blocks: int | None = Field(None, ge=1, le=MOST_LAYERS)
    """Number of generator blocks. None: as many as it takes to reach image_size by doubling, where
    image_size must be a power of two."""

    last_size: int | None = Field(224, ge=8)
    """Side of the generated images in pixels, the output size of the last generator block. None:
    image_size."""

    judge_width: int = Field(512, ge=1)
    """Channels of the discriminator's last block."""

    judge_pixels: bool = False
    """Whether the discriminator also sees the pixels of each of CLIP's patches. The paper has no
    such setting; README.md says what it is for."""

    assessor_width: int = Field(128, ge=1)
    """Hidden channels of the quality assessor."""

    unit_text: bool = False
    """Whether each sentence vector is divided by its length."""

    similarity: float = Field(4.0, ge=0)
    """Weight of CLIP's image-text similarity in the generator's loss (the paper's lambda)."""

    bounded: bool = False
    """Whether the generator ends in a tanh, as DF-GAN's does. False: images are unbounded in
    training and clamped to [-1, 1] in sampling. The paper has no such setting; README.md says what
    it is for."""

    text_share: float = Field(0.05, gt=0, lt=1)
    """Share of the training budget for the contrastive pretraining of text encoder and CLIP.
    Between 0 and 1. It trains those of the two that are trainable. With the authors' settings
    neither is, and this stage is left out."""

    clip_lr: float = Field(1e-3, gt=0)
    """Learning rate of CLIP in the contrastive stage."""

    text_lr: float = Field(1e-4, gt=0)
    """Learning rate of the text encoder in the contrastive stage."""

    text_batch_size: int | None = Field(None, ge=2)
    """Images per step of the contrastive stage. None: batch_size."""

    @field_validator("feature_blocks", "prompt_blocks")
    @classmethod
    def _ascending(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if any(first >= second for first, second in pairwise((0, *blocks))):
            raise ValueError("must be ascending numbers of CLIP's blocks, counted from 1")
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
                f"image_size ({self.image_size}) must be a power of two unless 'blocks' is set"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        clip: tuple[str, Mapping[str, Any]] = ("clip", {})
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1, "width": 64})),
            # 1,500 epochs of 8,855 images
            "cub": Preset({**_PAPER, "steps": 830_000}, ("cub", {}), clip),
            "coco": Preset({**_PAPER, "steps": 1_000_000}, ("coco", {}), clip),
            "thesis": Preset(_THESIS, ("webdataset", {}), clip),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        seen = min(size, 64)  # CLIP's own input; its grid is 8x8
        clip = {**_TINY["clip"], "image_size": seen, "patch": seen // 8}
        settings = {**_TINY, "image_size": size}
        if memory is None:
            settings |= {"nf": 16 if size <= 64 else 8, "batch_size": quick_batch(size)}
        else:
            clip |= {"width": by_memory(memory, (128, 192, 256, 384)), "layers": 6}
            settings |= {
                **WIDE, "nf": by_memory(memory, (24, 32, 48, 64)), "z_dim": 100,
                "feature_blocks": (2, 4, 6), "prompt_blocks": (2, 3, 4, 5, 6), "bridge_width": 64,
                "bridge_middle": 32, "bridge_blocks": 4, "judge_width": 128, "assessor_width": 128,
            }  # fmt: skip
        return Preset({**settings, "clip": clip}, encoder=("words", {"layers": 1, "width": 64}))


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

_TINY: dict[str, Any] = {
    **AFFINE_TINY,
    "clip": {
        "weights": None, "image_size": 32, "patch": 4, "width": 64, "layers": 3, "heads": 4,
        "normalise": "once",
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

_SHAPES = {
    **_TINY,
    **QUICK,
    "clip": {**_TINY["clip"], "weights": "shapes-clip"},
    "judge_pixels": True,
}
