"""Settings of fully connected GANs. This module does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS
from t2i.plugins.common.gan.config import GANConfig

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_LAYERS)]


class MLPGANConfig(GANConfig):
    """Settings of fully connected GANs. The defaults are those of Goodfellow et al. 2014, MNIST."""

    lr_g: float = Field(0.1, gt=0)
    """Learning rate of the generator."""

    lr_d: float = Field(0.1, gt=0)
    """Learning rate of the discriminator."""

    z_dim: int = Field(100, ge=1)
    """Size of the noise vector of an image."""

    z_law: Literal["uniform", "normal"] = "uniform"
    """Distribution of the noise that the generator's first layer gets: "uniform" between -sqrt(3)
    and sqrt(3), or "normal". Both have variance 1."""

    widths_g: Widths = (1200, 1200)
    """Widths of the generator's hidden layers."""

    activations_g: tuple[Literal["relu", "leaky", "sigmoid"], ...] = Field(("relu",), min_length=1)
    """Activations of these layers: "relu", "leaky" (0.2) or "sigmoid". The last one of a shorter
    list serves the layers that are left."""

    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    """What follows the generator's last layer. "sigmoid": pixels are in [0, 1] for both networks.
    "tanh": in [-1, 1]. "linear": nothing; samples are clamped to [-1, 1]."""

    channels: Literal[1, 3] = 3
    """Colour channels of the images that the networks see. 1: grey, for digits."""

    dropout_g: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of the generator's hidden units in training."""

    activation_d: Literal["maxout", "leaky"] = "maxout"
    """Activation of the discriminator's hidden layers: "maxout" (the largest of `pieces` linear
    maps) or "leaky" (leaky ReLU, slope 0.2)."""

    widths_d: Widths = (240, 240)
    """Widths of the discriminator's hidden layers, from the image on."""

    pieces: int = Field(5, ge=2)
    """Linear maps of a maxout unit in these layers."""

    dropout_input: float = Field(0.2, ge=0, lt=1)
    """Dropout rate of the discriminator's inputs, in the generator's loss too."""

    dropout_d: float = Field(0.5, ge=0, lt=1)
    """Dropout rate of the discriminator's hidden units, in the generator's loss too."""

    spread_g: float | None = Field(0.05, gt=0)
    """Initial weights of the generator are uniform between -spread_g and spread_g. None: between
    the bounds that suit each layer's width."""

    spread_output: float | None = Field(None, gt=0)
    """The same for the generator's last layer. None: as the other layers."""

    spread_d: float | None = Field(0.005, gt=0)
    """Initial weights of the discriminator are uniform between -spread_d and spread_d. None:
    between the bounds that suit each layer's width."""

    simultaneous: bool = True
    """Whether both losses are computed before either network is updated, as in the authors' code.
    Else the generator is updated against the discriminator that has just been updated."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer of both networks. "sgd": with momentum, as in the paper. "adam": with `beta1` and
    `beta2`."""

    momentum: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.5,
        0.7,
    )
    """Momentum of "sgd" at the first step and after `momentum_steps`, with a line between."""

    momentum_steps: int = Field(125_000, ge=1)
    """Steps over which the momentum of "sgd" rises."""

    lr_divisor: float = Field(1.000004, ge=1)
    """The learning rates of "sgd" are divided by this number at each step, down to `lr_least`."""

    lr_least: float = Field(1e-6, gt=0)
    """Least learning rate of "sgd"."""

    @model_validator(mode="after")
    def _layers_have_activations(self) -> Self:
        if not self.widths_d:
            raise ValueError("widths_d: the discriminator needs a hidden layer, such as [240]")
        if self.optimizer == "sgd" and max(self.lr_g, self.lr_d) < self.lr_least:
            raise ValueError("lr_least: it is above both learning rates; use less")
        return self


QUICK_MLP = {
    "z_dim": 32, "z_law": "normal",
    "activations_g": ("leaky",), "output": "tanh",
    "activation_d": "leaky", "dropout_input": 0.0, "dropout_d": 0.3,
    "spread_g": None, "spread_d": None,
    "simultaneous": False, "optimizer": "adam", "lr_g": 5e-4, "lr_d": 5e-4,
}  # fmt: skip
"""Settings of networks that learn in minutes: leaky units, Adam, one network after the other."""
