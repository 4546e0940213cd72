"""Settings of the conditional GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY, quick_batch
from t2i.plugins.common.gan.mlp.config import QUICK_MLP, MLPGANConfig, Widths
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining


class CGANConfig(MLPGANConfig, TextPretraining):
    """Settings of the conditional GAN.

    The defaults are the paper's for MNIST, with a sentence in the place of its label.
    """

    widths_g: Widths = (1200,)
    """Widths of the generator's layers that take noise and text together."""

    widths_z: Widths = (200,)
    """Widths of the generator's layers that take the noise alone. Empty: the noise is passed on as
    it is."""

    widths_text_g: Widths = (1000,)
    """Widths of the generator's layers that take the sentence alone. Empty: the sentence is passed
    on as it is."""

    dropout_g: float = Field(0.5, ge=0, lt=1)
    """Dropout rate of the generator's hidden units in training."""

    widths_d: Widths = (240,)
    """Widths of the discriminator's layers that take the image alone."""

    widths_text_d: Widths = (50,)
    """Widths of the discriminator's layers that take the sentence alone. Empty: the sentence is
    passed on as it is. Only used with `widths_pair`."""

    widths_pair: Widths = (240,)
    """Widths of the discriminator's layers that take image and text together. Empty: the text is
    taken by `projection` alone."""

    pieces_pair: int = Field(4, ge=2)
    """Linear maps of a maxout unit in the layers that take image and text together."""

    projection: bool = False
    """Whether <h, V e> is added to the discriminator's logit: h are the features of the image, V e
    is a linear map of the sentence. Source: Miyato and Koyama 2018."""

    cls: float = Field(0.0, ge=0, lt=1)
    """Weight of wrong pairs (a real image with the sentence of another one) in the discriminator's
    loss. Generated images then weigh 1 - cls. 0: there are none, as in the paper. 0.5: as in
    GAN-CLS."""

    standardise: bool = False
    """Whether both networks standardise the sentences, by batch norm without a gain."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which the statistics of `standardise` are recomputed when the stage ends. 0:
    they stay running means."""

    @model_validator(mode="after")
    def _text_reaches_both(self) -> Self:
        if not self.widths_pair and not self.projection:
            raise ValueError(
                "the discriminator would not see the text: set projection=true, or give "
                "widths_pair a layer, such as [240]"
            )
        if self.cls and self.batch_size < 2 * self.accumulate:
            raise ValueError(
                "batch_size: wrong pairs need two images at a time: use more, accumulate=1 or cls=0"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "mnist": Preset(_MNIST, data=("imagefolder", {}), encoder=("words", {})),
            "shapes": Preset({**_TINY, **QUICK}, data=("shapes", {}), encoder=SHAPES_TEXT),
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
        return Preset(settings, encoder=("words", {"layers": 1}))


# 50,000 training images in batches of 100: 500 steps an epoch. The paper does not say how many.
_MNIST = {
    "image_size": 28,
    "channels": 1,
    "batch_size": 100,
    "steps": 125_000,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}

_TINY = {
    **TINY,
    **QUICK_MLP,
    "channels_last": False,  # there are no convolutions
    "widths_z": (),
    "widths_text_g": (64,),
    "widths_g": (512, 1024),
    "dropout_g": 0.0,
    "widths_d": (1024, 512),
    "widths_pair": (),
    "projection": True,
    "cls": 0.5,
    "standardise": True,
    "recalibrate": 16,
    "text_share": 0.1,
    "steps": 10_000,
}
