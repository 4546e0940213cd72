"""Settings of text encoders' training: contrastive pretraining, and DAMSM. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from t2i.core.settings import Config, ModelConfig


class TextPretraining(ModelConfig):
    """A text encoder that can be trained is pretrained contrastively, then frozen (plugins/common/text/contrastive.py).

    text_share: part of the budget in which that is done; with a frozen encoder there is no such stage. text_lr: of the
    encoder in it; matcher_lr, matcher_width: of the image network that it is matched with.
    """

    text_share: float = Field(0.05, gt=0, lt=1)
    text_lr: float = Field(1e-4, gt=0)
    matcher_lr: float = Field(1e-3, gt=0)
    matcher_width: int = Field(32, ge=4, multiple_of=4)


class Smoothing(Config):
    """DAMSM's factors (AttnGAN, equations 9 to 11); the defaults are those of the authors' code. gamma1: sharpens the
    attention over regions (the paper's text: 5). gamma2: how much the best matching words count. gamma3: of scores."""

    gamma1: float = Field(4.0, gt=0)
    gamma2: float = Field(5.0, gt=0)
    gamma3: float = Field(10.0, gt=0)


class DamsmTraining(Config):
    """Training of DAMSM, as the authors' code has it.

    batch_size: of its steps. lr: Adam's; lr_text: of the text encoder (None: the same). decay: of both, an epoch, down
    to lr_floor of them; epochs: what the whole stage stands for. clip: maximal norm of the text encoder's gradients.
    """

    smoothing: Smoothing = Smoothing()
    batch_size: int = Field(48, ge=2)
    lr: float = Field(2e-3, gt=0)
    lr_text: float | None = Field(None, gt=0)
    decay: float = Field(0.98, gt=0, le=1)
    lr_floor: float = Field(0.1, ge=0, le=1)
    epochs: int = Field(200, ge=1)
    clip: float = Field(0.25, gt=0)


class ImageEncoderConfig(Config):
    """DAMSM's image encoder.

    kind: "inception", the paper's, whose trunk is frozen; "small", a few convolutions, all trained, for small images;
    "none" leaves it out, and DAMSM with it. inception: path of torchvision's inception_v3_google-*.pth (or the same
    as safetensors). weights: path of the authors' image_encoder*.pth, trunk and all; beside a frozen text encoder there
    is nothing left to train. width: of the small one.
    """

    kind: Literal["inception", "small", "none"] = "inception"
    inception: str | None = Field(None, min_length=1)
    weights: str | None = Field(None, min_length=1)
    width: int = Field(32, ge=4, multiple_of=4)

    @model_validator(mode="after")
    def _one_source(self) -> ImageEncoderConfig:
        if self.kind != "inception" and (self.inception or self.weights):
            raise ValueError(f"files of weights are for kind 'inception', not for '{self.kind}'")
        return self
