"""Settings that GANs share.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.gan.remedies.config import RemediesConfig


class GANConfig(RemediesConfig):
    """Settings of a GAN: its two Adam optimizers and the remedies for mode collapse.

    The defaults of the optimizers are StackGAN's and AttnGAN's."""

    lr_g: float = Field(2e-4, gt=0)
    """Learning rate of the generator."""

    lr_d: float = Field(2e-4, gt=0)
    """Learning rate of the discriminators."""

    beta1: float = Field(0.5, ge=0, lt=1)
    """Decay rate of Adam's running mean of gradients, for generator and discriminators."""

    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay rate of Adam's running mean of squared gradients, for generator and discriminators."""

    outline: float = Field(0.0, ge=0)
    """Weight of the outline loss in the generator's loss: the squared error between generated and
    real image of a caption, both averaged to 8x8 places. 0: it is left out, as in the papers.
    README.md of DF-GAN says what it is for."""


class AffineGANConfig(GANConfig):
    """Settings that DF-GAN and GALIP share.

    Both use a hinge loss with the matching-aware gradient penalty, and affine fusion blocks. The
    defaults are the papers'. The last three settings are ours; the README of DF-GAN explains them.
    """

    lr_g: float = Field(1e-4, gt=0)
    """Learning rate of the generator."""

    lr_d: float = Field(4e-4, gt=0)
    """Learning rate of the discriminator."""

    beta1: float = Field(0.0, ge=0, lt=1)
    """Decay rate of Adam's running mean of gradients, for generator and discriminator."""

    beta2: float = Field(0.9, ge=0, lt=1)
    """Decay rate of Adam's running mean of squared gradients, for generator and discriminator."""

    penalty_k: float = Field(2.0, ge=0)
    """Weight k of the matching-aware gradient penalty."""

    penalty_p: float = Field(6.0, ge=2)
    """Power p of the gradient's norm in that penalty, at least 2."""

    start_from_text: bool = False
    """Whether the generator's first linear layer also takes the sentence: linear([z; e]) instead of
    linear(z)."""

    fusion_gain: float = Field(0.0, ge=0)
    """Initial spread of gamma and beta in the fusion blocks. 0, as in the papers: the blocks start
    as the identity."""

    residual_gain: float = 0.0
    """Initial factor of the discriminator's residual branches, and of the CLIP features that GALIP
    adds."""


TINY = {
    "image_size": 32,
    "batch_size": 32,
    "ema_decay": 0.998,
    "lr_schedule": "linear",
    "lr_floor": 0.1,
    "channels_last": True,
}
"""Settings that the presets `tiny` of all GANs have in common."""

AFFINE_TINY = {
    **TINY,
    "nf": 16,
    "steps": 3000,
    "lr_g": 7e-4,
    "lr_d": 1.4e-3,
    "start_from_text": True,
    "fusion_gain": 1.0,
    "residual_gain": 1.0,
    "warmup": 50,
}
"""Settings that the presets `tiny` of DF-GAN and GALIP have in common."""

SHAPES_TEXT = ("words", {"weights": "shapes-clip", "frozen": True})
"""The text encoder of the presets `shapes`: the text half of the CLIP that the data set ships."""

QUICK = {"batch_size": 16, "outline": 10.0, "ema_decay": 0.99, "lr_hold": 0.5}
"""Settings that the presets `shapes` of all GANs lay over those of `tiny`, for minutes of training:
small batches, which give more steps for as many images, and an average over fewer steps."""

PAPER = {
    "image_size": 256,
    "augment": {"scale": 76 / 64, "flip": True},
}
"""Image settings of the papers: random crops of 256 pixels from images of 304 pixels, mirrored half
of the time."""

WIDE = {"ema_decay": 0.999, "warmup": 200, "lr_g": 1e-4, "lr_d": 4e-4}
"""Settings of DF-GAN's and GALIP's presets `auto` on an accelerator, laid over those of `tiny`: the
papers' learning rates for wider networks."""


def quick_batch(size: int) -> int:
    """Return the batch size of a GAN's preset `auto` on a CPU.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        32 up to 64 pixels, 16 up to 256 pixels, else 8.
    """
    return 32 if size <= 64 else 16 if size <= 256 else 8
