"""Settings of GAN-CLS, GAN-INT and GAN-INT-CLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY, GANConfig, quick_batch
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining

START = 4  # pixels: the side of the smallest feature maps


class GANCLSConfig(GANConfig, TextPretraining):
    """Settings of GAN-CLS, GAN-INT and GAN-INT-CLS. The defaults are the authors' for CUB."""

    ngf: int = Field(128, ge=4, multiple_of=4)
    """Base width of the generator, a multiple of 4: its channels at half the size of the image."""

    ndf: int = Field(64, ge=4, multiple_of=4)
    """Base width of the discriminator, a multiple of 4: its channels at half the size of the
    image."""

    nt: int = Field(128, ge=1)
    """Width to which both networks map the sentence."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector z."""

    residuals: bool = True
    """Whether there are residual blocks: two in the generator, one in the discriminator. The
    authors' code has them, the port to PyTorch does not."""

    joint: bool = True
    """Whether the discriminator has a 1x1 convolution between features with text and logit. The
    authors' code has it, the port does not."""

    norm_text: Literal["none", "discriminator", "both"] = "discriminator"
    """Which networks have batch norm after the linear map of the sentence: the authors'
    discriminator (main_cls_int.lua), none (main_cls.lua), or both (the port)."""

    bare_third: bool = True
    """Whether no leaky ReLU follows the discriminator's last convolution but one. So it is in
    main_cls_int.lua; main_cls.lua and the port have it."""

    standardise: bool = False
    """Whether both networks standardise the sentences, by batch norm without a gain."""

    captions: int = Field(4, ge=1)
    """Captions of an image whose sentence vectors are averaged, drawn with repetition. 1: one
    caption, as it is. Data that has one caption an image makes no difference."""

    cls: float = Field(0.5, ge=0)
    """Weight of wrong pairs (a real image with the sentence of another one, of another class where
    classes are known) in the discriminator's loss. 0: there are none (GAN-INT)."""

    fake: float | None = Field(None, gt=0)
    """Weight of generated images in the discriminator's loss. None: 1 - cls, as the authors have
    it. The port has 1."""

    interp: float = Field(1.0, ge=0)
    """Weight of interpolated sentences in the generator's loss: half as many as there are images.
    0: there are none (GAN-CLS)."""

    extrapolate: bool = False
    """Whether a random multiple, from -1 to 1, of the difference of both sentences is added to each
    interpolated one, instead of taking the middle (interp_type 2 of the authors' code)."""

    fresh: bool = True
    """Whether the generator is updated on noise of its own, as in the authors' code, and so runs
    twice a step. Else it is updated on the images that the discriminator was updated on."""

    label: float = Field(1.0, gt=0.5, le=1)
    """Label of real images in the discriminator's loss. The port has 0.9."""

    features: float = Field(0.0, ge=0)
    """Weight of feature matching in the generator's loss: the squared error between the batch means
    of the discriminator's features of generated and of real images. The port has 100."""

    pixels: float = Field(0.0, ge=0)
    """Weight of the absolute error between generated and real image of a caption in the
    generator's loss. The port has 50."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when the
    stage ends. 0: they stay those of the last weights. The authors do not average weights."""

    @property
    def weight_of_fakes(self) -> float:
        """Weight of generated images in the discriminator's loss."""
        return 1 - self.cls if self.fake is None else self.fake

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.image_size & (self.image_size - 1) or self.image_size < 4 * START:
            raise ValueError(
                f"image_size = {self.image_size}: the generator doubles 4x4 pixels: "
                "use 16, 32, 64, 128 ..."
            )
        if self.weight_of_fakes <= 0:
            raise ValueError(
                "cls: generated images would weigh 1 - cls: use less than 1, or fake=1"
            )
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                "batch_size: wrong pairs and batch norm need two images at a time: "
                "use more, or accumulate=1"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_CUB, data=("cub", {}), encoder=("char-cnn-rnn", {})),
            "flowers": Preset(
                _FLOWERS, data=("flowers", {}), encoder=("char-cnn-rnn", {"recurrence": "rnn"})
            ),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("char-cnn-rnn", {})),
            "port": Preset(_PORT, data=("cub", {}), encoder=("char-cnn-rnn", {})),
            "shapes": Preset({**_TINY, **QUICK, **_LEARNT}, ("shapes", {}), SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            ngf, ndf = (64, 32) if size <= 32 else (24, 24) if size <= 64 else (8, 8)
            settings |= {"ngf": ngf, "ndf": ndf, "batch_size": quick_batch(size)}
        else:
            ngf = by_memory(memory, (72, 96, 128, 196))
            settings |= {
                "ngf": ngf, "ndf": 64, "z_dim": 100, "nt": 128, "lr_g": 2e-4, "lr_d": 2e-4,
                "ema_decay": 0.999,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


_PAPER = {
    "image_size": 64,
    "augment": {"scale": 76 / 64, "flip": True},
    "batch_size": 64,
    "ema_decay": 0.0,
    "lr_schedule": "halving",
    "sample_every": 5000,
    "checkpoint_every": 5000,
}
# 8,855 training images in batches of 64 make 138 steps an epoch. The rates are halved at the epochs
# 100, 200 ... 600: six equal parts.
_CUB = _PAPER | {"steps": 600 * 138, "lr_halvings": 5}
_FLOWERS = _PAPER | {"steps": 600 * 110, "lr_halvings": 5}  # 7,034 training images
# 82,783 training images: 1,293 steps an epoch, halved every 40 of 200 epochs. main_cls.lua has no
# interpolation.
_COCO = _PAPER | {
    "ngf": 196,
    "ndf": 196,
    "captions": 3,
    "interp": 0.0,
    "norm_text": "none",
    "bare_third": False,
    "steps": 200 * 1293,
    "lr_halvings": 4,
}
# The port of the authors' code to PyTorch, as it is trained by default.
_PORT = _PAPER | {
    "augment": {},
    "lr_schedule": "constant",
    "ngf": 64,
    "ndf": 64,
    "captions": 1,
    "residuals": False,
    "joint": False,
    "norm_text": "both",
    "bare_third": False,
    "cls": 0.0,
    "fake": 1.0,
    "interp": 0.0,
    "label": 0.9,
    "features": 100.0,
    "pixels": 50.0,
    "steps": 200 * 138,
}

_TINY = {
    **TINY,
    "ngf": 64,
    "ndf": 32,
    "nt": 64,
    "z_dim": 32,
    "norm_text": "none",
    "bare_third": False,
    "standardise": True,
    "captions": 1,
    "interp": 0.0,
    "fresh": False,
    "steps": 6000,
    "text_share": 0.1,
    "lr_g": 2e-3,
    "lr_d": 6e-4,
    "recalibrate": 16,
}

# With the authors' loss the discriminator wins, whatever the rates. R1 and R2 bound it.
_LEARNT = {"loss": "relativistic", "critic_norm": "layer", "lr_g": 1e-3, "lr_d": 5e-4}
