"""Settings of StackGAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.gan.config import PAPER, QUICK, SHAPES_TEXT, TINY, GANConfig, quick_batch
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining

START = 4  # pixels: the side of the smallest feature maps


class StackGANConfig(GANConfig, TextPretraining):
    """Settings of StackGAN. The defaults are the authors' for CUB."""

    gf: int = Field(128, ge=4, multiple_of=4)
    """Base width of the two generators, a multiple of 4."""

    df: int = Field(64, ge=1)
    """Base width of the two discriminators: the channels of their first layer."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector z."""

    c_dim: int = Field(128, ge=1)
    """Size of the augmented condition c^ of each stage."""

    residuals: int = Field(4, ge=0, le=MOST_LAYERS)
    """Residual blocks of stage II."""

    stages: Literal[1, 2] = 2
    """Number of stages. 2: both. 1: stage I alone, which then generates images of image_size."""

    upscale: Literal[2, 4, 8] = 4
    """Side of stage II's images divided by that of stage I's."""

    kl: float = Field(2.0, ge=0)
    """Weight of the KL term of the conditioning augmentation (the paper's lambda)."""

    stage1_share: float = Field(0.5, gt=0, lt=1)
    """Share of stage I in the training budget of the two stages, between 0 and 1."""

    stage1_batch: int | None = Field(None, ge=2)
    """Images per step of stage I. None: batch_size."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when a
    stage ends. 0: they stay those of the last weights. The authors neither average weights nor
    recompute statistics."""

    halvings: tuple[int, int] = (11, 5)
    """How often the learning rates are halved in stage I and in stage II. Only used with
    lr_schedule "halving"."""

    @property
    def first_size(self) -> int:
        """Side of stage I's images in pixels."""
        return self.image_size if self.stages == 1 else self.image_size // self.upscale

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.image_size & (self.image_size - 1):
            raise ValueError(
                f"image_size = {self.image_size}: the generators double 4x4 pixels: "
                "use 32, 64, 128, 256 ..."
            )
        if self.first_size < 2 * START:
            least = 2 * START * (self.upscale if self.stages == 2 else 1)
            raise ValueError(
                f"image_size = {self.image_size}: stage I draws {self.first_size} px: "
                f"use {least} or more"
            )
        if min(self.batch_size, self.stage1_batch or self.batch_size) < 2 * self.accumulate:
            raise ValueError(
                "batch_size: wrong pairs and batch norm need two images at a time: "
                "use more, or accumulate=1"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("char-cnn-rnn", {})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("char-cnn-rnn", {})),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size, "upscale": 2 if size <= 64 else 4}
        if memory is None:
            gf, df = (24, 32) if size <= 32 else (16, 16) if size <= 64 else (8, 8)
            settings |= {"gf": gf, "df": df, "batch_size": quick_batch(size)}
        else:
            gf, df = (by_memory(memory, widths) for widths in ((48, 64, 96, 128), (24, 32, 48, 64)))
            settings |= {
                "gf": gf, "df": df, "z_dim": 100, "residuals": 2, "lr_g": 2e-4, "lr_d": 2e-4,
                "ema_decay": 0.999,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


_PAPER = {
    **PAPER,
    "lr_schedule": "halving",
    "ema_decay": 0.0,
}
# 8,855 training images in batches of 64 make 138 steps an epoch. Each stage takes 600 epochs. The
# learning rates are halved every 50 epochs in stage I and every 100 in stage II.
_CUB = _PAPER | {"batch_size": 64, "steps": 2 * 600 * 138}
# 82,783 training images: 120 epochs of 646 steps (batches of 128), then 100 epochs of 2,069 steps
# (batches of 40). The learning rates are halved every 20 epochs.
_COCO = _PAPER | {
    "gf": 192,
    "df": 96,
    "residuals": 2,
    "batch_size": 40,
    "stage1_batch": 128,
    "steps": 120 * 646 + 100 * 2069,
    "stage1_share": 120 * 646 / (120 * 646 + 100 * 2069),
    "halvings": (5, 4),
}

_TINY = {
    **TINY,
    "upscale": 2,
    "gf": 24,
    "df": 32,
    "z_dim": 16,
    "c_dim": 128,
    "residuals": 1,
    "steps": 11000,
    "text_share": 0.07,
    "lr_g": 6e-4,
    "lr_d": 6e-4,
    "kl": 0.002,
    "recalibrate": 16,
}

# Stage II learns what is scored, so it gets most of the time. With equal learning rates the
# discriminator wins.
_SHAPES = {**_TINY, **QUICK, "stage1_share": 0.2, "lr_g": 1.5e-3, "lr_d": 5e-4}
