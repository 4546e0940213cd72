"""Settings of text encoders and their training: contrastive pretraining and DAMSM.

This does not import torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from t2i.core.settings import Config, ModelConfig

BINDING = {"layers": 1, "positions": 0.3, "neighbours": 5}
"""Settings of the `words` encoder with which it learns within minutes which object has which
colour."""


class TextPretraining(ModelConfig):
    """Settings of models that pretrain a trainable text encoder contrastively and then freeze it.

    The training is in `t2i.plugins.common.text.contrastive`.
    """

    text_share: float = Field(0.05, gt=0, lt=1)
    """Share of the training budget for pretraining the text encoder. Between 0 and 1. Ignored if
    the encoder is frozen: there is then no such stage."""

    text_lr: float = Field(1e-4, gt=0)
    """Learning rate of the text encoder in its pretraining. It should be smaller than
    `matcher_lr`."""

    matcher_lr: float = Field(1e-3, gt=0)
    """Learning rate of the image network that the text encoder is pretrained with."""

    matcher_width: int = Field(32, ge=4, multiple_of=4)
    """Channels of the first layer of that image network, a multiple of 4. Later layers have up to
    four times as many."""


class Smoothing(Config):
    """Factors of DAMSM's losses. The defaults are those of the authors' code.

    Source: Xu et al. 2018 (AttnGAN), equations 9 to 11.
    """

    gamma1: float = Field(4.0, gt=0)
    """Sharpness of each word's attention over image regions. The paper's text has 5."""

    gamma2: float = Field(5.0, gt=0)
    """Weight of the best matching words in the score of a caption. The larger, the more they
    count."""

    gamma3: float = Field(10.0, gt=0)
    """Factor of the scores in the softmax over the images and captions of a batch."""


class DamsmTraining(Config):
    """Settings of DAMSM's training. The defaults are those of the authors' code."""

    smoothing: Smoothing = Smoothing()
    """Factors of the losses, gamma1 to gamma3."""

    batch_size: int = Field(48, ge=2)
    """Images in one step of this stage."""

    lr: float = Field(2e-3, gt=0)
    """Learning rate of Adam."""

    lr_text: float | None = Field(None, gt=0)
    """Learning rate of the text encoder. None: `lr`."""

    decay: float = Field(0.98, gt=0, le=1)
    """Factor of both learning rates after each of the `epochs`. 1 keeps them constant."""

    lr_floor: float = Field(0.1, ge=0, le=1)
    """Smallest fraction of the learning rates that the decay may reach."""

    epochs: int = Field(200, ge=1)
    """Number of equal parts that the stage is divided into for the decay. They are nominal epochs:
    the length of the stage does not depend on them."""

    clip: float = Field(0.25, gt=0)
    """Largest norm of the text encoder's gradients. The image encoder's are not clipped."""


class ImageEncoderConfig(Config):
    """Settings of DAMSM's image encoder."""

    kind: Literal["inception", "small", "none"] = "inception"
    """Network of the image encoder. "inception": the paper's Inception-v3 with a frozen trunk.
    "small": a few convolutions, all trained, for small images. "none": no image encoder, hence no
    DAMSM."""

    inception: str | None = Field(None, min_length=1)
    """Path of torchvision's inception_v3_google-*.pth, or of the same weights as safetensors. Only
    for kind "inception"."""

    weights: str | None = Field(None, min_length=1)
    """Path of the authors' image_encoder*.pth, which includes the trunk. Only for kind "inception".
    With these weights and a frozen text encoder nothing is left to train."""

    width: int = Field(32, ge=4, multiple_of=4)
    """Channels of the first layer of the small encoder, a multiple of 4. Later layers have up to
    four times as many."""

    @model_validator(mode="after")
    def _one_source(self) -> ImageEncoderConfig:
        if self.kind != "inception" and (self.inception or self.weights):
            raise ValueError(f"files of weights are for kind 'inception', not for '{self.kind}'")
        return self
