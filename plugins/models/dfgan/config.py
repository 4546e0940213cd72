"""Settings of DF-GAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from t2i.core.settings import Preset
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
from t2i.plugins.common.text.config import TextPretraining


class DFGANConfig(AffineGANConfig, TextPretraining):
    """Settings of DF-GAN. The defaults are the paper's."""

    nf: int = Field(32, ge=1)
    """Base width of generator and discriminator: their channels at the size of the image."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector of an image."""

    joint: int | None = Field(None, ge=1)
    """Hidden channels of the one-way output. None: 2 nf."""

    @field_validator("image_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(
                "must be a power of two (the generator doubles 4x4 pixels): 16, 32, 64, 128 ..."
            )
        return size

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": _paper("cub", steps=359_000),  # 1,300 epochs of 8,855 images
            "coco": _paper("coco", steps=776_000),  # 300 epochs of 82,783 images
            "shapes": Preset({**_TINY, **QUICK}, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            settings |= {"nf": 16 if size <= 64 else 8, "batch_size": quick_batch(size)}
        else:
            settings |= {**WIDE, "nf": by_memory(memory, (24, 32, 48, 64)), "z_dim": 100}
        return Preset(settings, encoder=("words", {"layers": 1}))


def _paper(data: str, steps: int) -> Preset:
    """Return a preset with the paper's settings.

    Where the paper leaves them open they are the authors' code's: no averaged weights, truncation
    0.88.
    """
    settings = {
        **PAPER,
        "ema_decay": 0.0,
        "steps": steps,
        "sample_every": 5000,
        "checkpoint_every": 5000,
    }
    return Preset(
        settings,
        (data, {}),
        encoder=("damsm", {"max_words": 18}),
        sampler=("direct", {"truncation": 0.88}),
    )


_TINY = {
    **AFFINE_TINY,
    "text_share": 0.1,
    "z_dim": 32,
}
