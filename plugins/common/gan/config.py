"""Settings that GANs share. This module does not import torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import ModelConfig


class GANConfig(ModelConfig):
    """Settings of Adam for the generator and the discriminators of a GAN.

    The defaults are StackGAN's and AttnGAN's.
    """

    lr_g: float = Field(2e-4, gt=0)
    """Learning rate of the generator, above 0."""
    lr_d: float = Field(2e-4, gt=0)
    """Learning rate of the discriminators, above 0."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Decay rate of Adam's average of gradients, for generator and discriminators.

    From 0 to below 1.
    """
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay rate of Adam's average of squared gradients, for generator and discriminators.

    From 0 to below 1.
    """


class AffineGANConfig(GANConfig):
    """Settings that DF-GAN and GALIP share.

    Both have a hinge loss with the matching-aware gradient penalty, and affine fusion blocks. The
    defaults are the papers'. `start_from_text`, `fusion_gain` and `residual_gain` are not in the
    papers; the README of DF-GAN explains them.
    """

    lr_g: float = Field(1e-4, gt=0)
    """Learning rate of the generator, above 0."""
    lr_d: float = Field(4e-4, gt=0)
    """Learning rate of the discriminator, above 0."""
    beta1: float = Field(0.0, ge=0, lt=1)
    """Decay rate of Adam's average of gradients, for generator and discriminator.

    From 0 to below 1.
    """
    beta2: float = Field(0.9, ge=0, lt=1)
    """Decay rate of Adam's average of squared gradients, for generator and discriminator.

    From 0 to below 1.
    """
    penalty_k: float = Field(2.0, ge=0)
    """Weight k of the gradient penalty, at least 0."""
    penalty_p: float = Field(6.0, ge=2)
    """Power p of the gradient's norm in the gradient penalty, at least 2."""
    start_from_text: bool = False
    """Whether the generator's first feature map is computed from noise and sentence.

    True: linear([z; e]). False, as in the papers: linear(z), from the noise alone.
    """
    fusion_gain: float = Field(0.0, ge=0)
    """Initial spread of the scales gamma and shifts beta of the fusion blocks.

    At least 0. It is sqrt(C) times the standard deviation of the initial weights of the layer that
    gives them. 0, as in the papers: gamma is 1 and beta 0 at first, whatever the text.
    """
    residual_gain: float = 0.0
    """Initial gain of the residual branches of the discriminator.

    In GALIP also of the CLIP features that join them. 0, as in the papers: they have no effect at
    first.
    """


TINY = {
    "image_size": 32,
    "batch_size": 32,
    "ema_decay": 0.998,
    "lr_schedule": "linear",
    "lr_floor": 0.1,
    "channels_last": True,
}
"""Settings that the presets `tiny` of all GANs share."""

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
"""Settings that the presets `tiny` of DF-GAN and GALIP share."""

PAPER = {
    "image_size": 256,
    "augment": {"scale": 76 / 64, "flip": True},
}
"""Image settings of the papers: random crops of 256 pixels from images of 304, half of them
mirrored."""
