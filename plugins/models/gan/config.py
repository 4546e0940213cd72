"""Settings of the vanilla GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import TINY, quick_batch
from t2i.plugins.common.gan.mlp.config import QUICK_MLP, MLPGANConfig
from t2i.plugins.common.sizing import by_memory

NO_TEXT: tuple[str, Mapping[str, Any]] = ("none", {})


class GANModelConfig(MLPGANConfig):
    """Settings of the vanilla GAN. The defaults are those of the authors' code for MNIST."""

    @model_validator(mode="after")
    def _no_outline(self) -> Self:
        if self.outline:
            raise ValueError(
                "outline: the images of this model do not depend on captions, so none has a real "
                "image to resemble: leave it at 0, or use the model cgan"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=NO_TEXT),
            "mnist": Preset(_MNIST, data=("imagefolder", {}), encoder=NO_TEXT),
            "cifar": Preset(_CIFAR, data=("imagefolder", {}), encoder=NO_TEXT),
            "shapes": Preset(
                {**_TINY, "ema_decay": 0.99, "lr_hold": 0.5},
                data=("shapes", {}),
                encoder=NO_TEXT,
            ),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            width = 1024 if size <= 64 else 256
            settings |= {"batch_size": quick_batch(size)}
        else:
            width = by_memory(memory, (1536, 2048, 3072, 4096))
            settings |= {"z_dim": 100, "lr_g": 2e-4, "lr_d": 2e-4, "ema_decay": 0.999}
        settings |= {"widths_g": (width // 2, width), "widths_d": (width, width // 2)}
        return Preset(settings, encoder=NO_TEXT)


_PAPER = {
    "batch_size": 100,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}
# 50,000 training images in batches of 100 make 500 steps an epoch. The momentum rises over 250
# epochs. The authors do not say when they stop.
_MNIST = _PAPER | {"image_size": 28, "channels": 1, "steps": 125_000}
# 40,000 training images: 400 steps an epoch.
_CIFAR = _PAPER | {
    "image_size": 32,
    "z_law": "normal",
    "widths_g": (8000, 8000),
    "activations_g": ("relu", "sigmoid"),
    "output": "linear",
    "spread_output": 0.5,
    "widths_d": (1600, 1600),
    "lr_g": 0.025,
    "lr_d": 0.025,
    "momentum_steps": 100_000,
    "steps": 100_000,
}

_TINY = {
    **TINY,
    **QUICK_MLP,
    "channels_last": False,  # there are no convolutions
    "widths_g": (512, 1024),
    "widths_d": (1024, 512),
    "steps": 10_000,
}
