"""Settings of alignDRAW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from t2i.core.settings import MOST_LAYERS, Config, Preset
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.variational.config import BoundConfig


class SharpenConfig(Config):
    """Settings of the network that sharpens the canvas, and of its adversarial training."""

    share: float = Field(0.0, ge=0, lt=1)
    """Share of the training budget for the sharpening network, which follows the rest. 0: there is
    none."""

    width: int = Field(128, ge=1)
    """Channels of its two hidden layers."""

    df: int = Field(32, ge=4)
    """Channels of the discriminator's first layer."""

    adversarial: float = Field(1.0, ge=0)
    """Weight of the discriminator's loss."""

    pixels: float = Field(0.0, ge=0)
    """Weight of the mean absolute error of sharpened reconstructions. It is ours: their outlines
    are where those of the real image are."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam for this network."""

    lr_d: float = Field(5e-4, gt=0)
    """Learning rate of Adam for the discriminator."""


class AlignDRAWConfig(BoundConfig):
    """Settings of alignDRAW. The defaults are the authors' for COCO."""

    draw_steps: int = Field(32, ge=1, le=MOST_LAYERS)
    """Number T of steps in which the canvas is written."""

    language: int = Field(128, ge=1)
    """Features of each of the two LSTMs that read the caption."""

    align: int = Field(512, ge=1)
    """Width of the layer that scores words."""

    hidden: int = Field(550, ge=1)
    """Features of the encoder's and of the decoder's LSTM."""

    z_dim: int = Field(275, ge=1)
    """Latents of a step."""

    read: int = Field(9, ge=2)
    """Side of the grid of filters that reads the image."""

    write: int = Field(9, ge=2)
    """Side of the window that is written."""

    order: Literal["reversed", "authors"] = "reversed"
    """What the second LSTM reads: "reversed", the caption from its last word to its first;
    "authors", as their code does in training, the caption of another image of the batch from its
    first word on, because it reverses the batch and not the words. In sampling it then reads its
    own caption, from its first word on."""

    canvas: Literal["learnt", "sentence"] = "learnt"
    """The canvas before the first step: "learnt", one for all captions; "sentence", with a linear
    map of the sentence vector added, which is ours: a white background need not be written by
    windows."""

    decode_sentence: bool = False
    """Whether the decoder's LSTM takes the sentence vector too, which is ours."""

    spread: float = Field(0.01, gt=0)
    """Initial standard deviation of all weights. 0.01 is the authors'. Larger ones learn sooner in
    few steps."""

    sharpen: SharpenConfig = SharpenConfig()
    """The network that sharpens the canvas."""

    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """The optimizer: "rmsprop" as the authors', or "adam"."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of the optimizer."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained together with the networks."""

    clip: float = Field(10.0, ge=0)
    """Largest norm of each tensor's gradient ("rmsprop"), or of all gradients together ("adam"), of
    nats per image. 0: they are not clipped."""

    temperature: float = Field(1.0, ge=0, le=2)
    """Factor of the prior's standard deviations in sampling."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("words", {"layers": 1})),
            "mnist": Preset(_MNIST, encoder=("words", {"layers": 1})),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings: dict[str, Any] = {**_TINY, "image_size": size}
        if memory is None:
            settings["batch_size"] = 32 if size <= 64 else 16
        else:
            hidden = by_memory(memory, (320, 400, 550, 700))
            settings |= {
                "hidden": hidden, "language": 128, "align": 256, "draw_steps": 16, "lr": 5e-4,
                "warmup": 200,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


# The authors' COCO run: 18 epochs (paper, from memory) of 82,783 images in batches of 100.
_COCO: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 100,
    "steps": 14_900,
    "ema_decay": 0.0,
}

# MNIST with captions: 60x60 pixels, of the authors' other folder.
_MNIST: dict[str, Any] = {
    "image_size": 60,
    "batch_size": 100,
    "steps": 20_000,
    "ema_decay": 0.0,
    "read": 8,
    "write": 8,
    "hidden": 300,
    "z_dim": 150,
}

_TINY: dict[str, Any] = {
    "image_size": 32,
    "steps": 6000,
    "batch_size": 32,
    "ema_decay": 0.995,
    "warmup": 50,
    "lr_schedule": "linear",
    "lr_hold": 0.5,
    "lr_floor": 0.02,
    "draw_steps": 8,
    "language": 64,
    "align": 64,
    "hidden": 256,
    "z_dim": 16,
    "read": 6,
    "write": 12,
    "canvas": "sentence",
    "decode_sentence": True,
    "spread": 0.05,
    "optimizer": "adam",
    "lr": 2e-3,
    "kl_warmup": 0.1,
    "temperature": 0.5,
    "sharpen": {
        "share": 0.3, "width": 24, "df": 24, "adversarial": 0.1, "pixels": 10.0, "lr": 2e-3,
    },
}  # fmt: skip

_SHAPES: dict[str, Any] = {**_TINY, "ema_decay": 0.99}
