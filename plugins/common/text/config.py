"""Settings for training text encoders: contrastive pretraining and DAMSM.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from t2i.core.settings import Config, ModelConfig


class TextPretraining(ModelConfig):
    """Settings of a model whose text encoder can be trained: it is pretrained, then frozen.

    The pretraining is contrastive (`plugins/common/text/contrastive.py`). A frozen encoder has no
    such stage, and these settings have no effect.
    """

    text_share: float = Field(0.05, gt=0, lt=1)
    """Share of the training budget that pretraining the text encoder takes, between 0 and 1. A
    frozen encoder needs none."""

    text_lr: float = Field(1e-4, gt=0)
    """Learning rate of Adam for the text encoder while it is pretrained."""

    matcher_lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam for the image network that is matched with captions during pretraining.
    """

    matcher_width: int = Field(32, ge=4, multiple_of=4)
    """Channels of the first layer of the image network for pretraining, a multiple of 4. Deeper
    layers have up to 4 times as many."""


class Smoothing(Config):
    """The three factors of DAMSM. The defaults are those of the authors' code.

    Source: Xu et al. 2018 (AttnGAN), equations 9 to 11.
    """

    gamma1: float = Field(4.0, gt=0)
    """Sharpness of the attention over image regions (equation 9). The paper's text says 5."""

    gamma2: float = Field(5.0, gt=0)
    """How much the best matching words of a caption count more than the others (equation 10)."""

    gamma3: float = Field(10.0, gt=0)
    """Factor of the matching scores in the losses, before the softmax over the batch (equation 11).
    Larger is sharper."""


class DamsmTraining(Config):
    """Settings for training DAMSM. The defaults are those of the authors' code."""

    smoothing: Smoothing = Smoothing()
    """The factors gamma1, gamma2 and gamma3 of the matching scores."""

    batch_size: int = Field(48, ge=2)
    """Images in one step of DAMSM's training, at least 2."""

    lr: float = Field(2e-3, gt=0)
    """Learning rate of Adam at the start, for the image encoder."""

    lr_text: float | None = Field(None, gt=0)
    """Learning rate of the text encoder at the start. None: the same as `lr`."""

    decay: float = Field(0.98, gt=0, le=1)
    """Factor by which both learning rates are multiplied after each epoch, above 0, at most 1."""

    lr_floor: float = Field(0.1, ge=0, le=1)
    """Lowest factor that the learning rates decay to, as a share of those at the start, 0 to 1."""

    epochs: int = Field(200, ge=1)
    """Number of epochs that the stage is divided into for the decay of the learning rates, whatever
    its length in steps."""

    clip: float = Field(0.25, gt=0)
    """Largest norm of the text encoder's gradients in one update. The image encoder's are not
    clipped."""


class ImageEncoderConfig(Config):
    """Settings of DAMSM's image encoder."""

    kind: Literal["inception", "small", "none"] = "inception"
    """Which image encoder DAMSM uses. "inception" is the paper's Inception-v3 with a frozen trunk;
    "small" is a few convolutions, all trained, for small images; "none" leaves out the image
    encoder and DAMSM with it."""

    inception: str | None = Field(None, min_length=1)
    """Path of torchvision's inception_v3_google-*.pth, or of the same weights as safetensors. Only
    for kind "inception"."""

    weights: str | None = Field(None, min_length=1)
    """Path of the authors' image_encoder*.pth, which includes the trunk. Only for kind "inception".
    With a text encoder that is frozen, nothing is left to train."""

    width: int = Field(32, ge=4, multiple_of=4)
    """Channels of the first layer of the "small" encoder, a multiple of 4. Deeper layers have up to
    4 times as many."""

    @model_validator(mode="after")
    def _one_source(self) -> ImageEncoderConfig:
        if self.kind != "inception" and (self.inception or self.weights):
            raise ValueError(f"files of weights are for kind 'inception', not for '{self.kind}'")
        return self
