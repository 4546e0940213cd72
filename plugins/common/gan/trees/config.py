"""Settings that GANs of several image sizes share: StackGAN-v2, AttnGAN and DM-GAN.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS
from t2i.plugins.common.gan.config import PAPER, TINY, GANConfig, quick_batch
from t2i.plugins.common.text.config import DamsmTraining, ImageEncoderConfig

START = 4  # pixels: the side of the smallest feature map, in generator and discriminators


TREE_TINY = {
    **TINY,
    "gf": 24,
    "df": 32,
    "scales": 2,
    "residual_blocks": 1,
    "z_dim": 32,
    "steps": 4000,
    "kl": 0.002,
    "lr_g": 2e-3,
    "lr_d": 6e-4,
    "standardise": True,
    "recalibrate": 20,
    "warmup": 50,
}
"""Settings that the presets `tiny` of the three models have in common."""

MATCHED_TINY = {
    **TREE_TINY,
    "c_dim": 64,
    "image_encoder": {"kind": "small"},
    "damsm": {"batch_size": 48, "lr": 1e-3, "lr_text": 3e-4, "epochs": 1},
    "damsm_share": 0.075,
    "damsm_weight": 0.2,
}
"""Settings that the presets `tiny` of AttnGAN and DM-GAN have in common."""

MATCHED_WIDE = {
    "residual_blocks": 2,
    "z_dim": 100,
    "c_dim": 100,
    "lr_g": 2e-4,
    "lr_d": 2e-4,
    "image_encoder": {"kind": "small", "width": 64},
    "ema_decay": 0.999,
}
"""Settings of their presets `auto` on an accelerator, laid over those of `tiny`."""

AVERAGED_PAPER = {
    **PAPER,
    "ema_decay": 0.999,
    "checkpoint_every": 5000,
    "sample_every": 5000,
}
"""Settings that the papers' presets of the three models have in common."""


def tree_sizes(size: int) -> dict[str, int]:
    """Return the widths and the scales of a preset `auto` on a CPU.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        The settings gf, df, scales and batch_size.
    """
    gf, df = (24, 32) if size <= 32 else (16, 16) if size <= 64 else (8, 8)
    return {"gf": gf, "df": df, "scales": 2 if size <= 64 else 3, "batch_size": quick_batch(size)}


class TreeConfig(GANConfig):
    """Settings of a generator that makes images of several sizes, with a discriminator for each.

    The papers have no settings `standardise` and `recalibrate`. The README of AttnGAN says what
    they are for.
    """

    gf: int = Field(64, ge=1)
    """Base width of the generator: its channels at the smallest image size."""

    df: int = Field(64, ge=1)
    """Base width of the discriminators: the channels of their first layer."""

    residual_blocks: int = Field(2, ge=0, le=MOST_LAYERS)
    """Residual blocks of each stage after the first (the papers' R)."""

    scales: int = Field(3, ge=1, le=MOST_LAYERS)
    """Number of image sizes. Each is twice the one before, and the last is image_size."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector z."""

    c_dim: int = Field(100, ge=1)
    """Size of the augmented condition c^."""

    standardise: bool = False
    """Whether sentence vectors are standardised by a batch norm: mean 0 and variance 1 in each
    dimension. Generator and discriminators both take the standardised vectors."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when
    training ends. 0: they stay those of the last weights."""

    kl: float = Field(1.0, ge=0)
    """Weight of the KL term of the conditioning augmentation (1 in the authors' code)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        first = self.image_size >> (self.scales - 1)
        if self.image_size & (self.image_size - 1) or first < 2 * START:
            raise ValueError(
                f"image_size ({self.image_size}) must be a power of two, and the first of the "
                f"{self.scales} scales at least {2 * START} pixels"
            )
        if self.batch_size // self.accumulate < 2:
            raise ValueError(
                "a batch (each of its `accumulate` parts) needs two images, to make wrong pairs"
            )
        return self

    @property
    def sizes(self) -> list[int]:
        """Sides of the images in pixels, the smallest first."""
        return [self.image_size >> i for i in reversed(range(self.scales))]


class MatchedTreeConfig(TreeConfig):
    """Settings of AttnGAN and DM-GAN, whose generators also minimise DAMSM's loss."""

    damsm_weight: float = Field(5.0, ge=0)
    """Weight of L_DAMSM in the generator's loss (the papers' lambda). 0: no such loss."""

    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    """DAMSM's image encoder."""

    damsm: DamsmTraining = DamsmTraining()
    """DAMSM's losses, and its training in the first stage."""

    damsm_share: float = Field(0.12, gt=0, lt=1)
    """Share of the training budget for DAMSM, between 0 and 1. This stage is left out where the
    text encoder is frozen and the image encoder has weights or is left out."""
