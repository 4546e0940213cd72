"""Settings of DF-GAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from t2i.core.settings import Preset
from t2i.plugins.common.text.config import TextPretraining


class DFGANConfig(TextPretraining):
    """Settings; the defaults are the paper's.

    nf: base width of G and D. z_dim: size of the noise. joint: channels of the one-way output (None: 2 nf).
    lr_g, lr_d, beta1, beta2: of Adam. penalty_k, penalty_p: of MA-GP.

    Three that the paper has not (README.md says what they are for):
    start_from_text: the generator's 4x4 map is linear([z; e]) instead of linear(z).
    fusion_gain: spread of the initial gamma and beta of the fusion blocks (0: they start as the identity).
    residual_gain: initial gain of the discriminator's residuals.
    """

    nf: int = Field(32, ge=1)
    z_dim: int = Field(100, ge=1)
    joint: int | None = Field(None, ge=1)
    lr_g: float = Field(1e-4, gt=0)
    lr_d: float = Field(4e-4, gt=0)
    beta1: float = Field(0.0, ge=0, lt=1)
    beta2: float = Field(0.9, ge=0, lt=1)
    penalty_k: float = Field(2.0, ge=0)
    penalty_p: float = Field(6.0, ge=2)
    start_from_text: bool = False
    fusion_gain: float = Field(0.0, ge=0)
    residual_gain: float = 0.0

    @field_validator("image_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError("the generator doubles 4x4 pixels again and again: use 16, 32, 64, 128, 256 ...")
        return size

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": _paper("cub", steps=359_000),  # 1,300 epochs of 8,855 pictures
            "coco": _paper("coco", steps=776_000),  # 300 epochs of 82,783 pictures
        }


def _paper(data: str, steps: int) -> Preset:
    """The paper's settings, and its authors' where it leaves them open: no averaged weights, truncation 0.88."""
    settings = {
        "image_size": 256,
        "augment": {"scale": 76 / 64, "flip": True},
        "ema_decay": 0.0,
        "steps": steps,
        "sample_every": 5000,
        "checkpoint_every": 5000,
    }
    return Preset(settings, (data, {}), encoder=("damsm", {"max_words": 18}), sampler=("direct", {"truncation": 0.88}))


_TINY = {
    "image_size": 32,
    "nf": 16,
    "text_share": 0.1,
    "z_dim": 32,
    "batch_size": 32,
    "steps": 3000,
    "lr_g": 7e-4,
    "lr_d": 1.4e-3,
    "start_from_text": True,
    "fusion_gain": 1.0,
    "residual_gain": 1.0,
    "ema_decay": 0.998,
    "lr_schedule": "linear",
    "lr_floor": 0.1,
    "warmup": 50,
    "channels_last": True,
}
