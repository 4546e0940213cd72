"""Generators: what turns noise and text features into images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.devices import device_of
from t2i.core.families.schedule import Prediction, Schedule
from t2i.core.interfaces.text import TextFeatures


class Generator(nn.Module, ABC):
    """Turns noise and text into images, float (B, 3, H, W) in [-1, 1].

    family: "one-shot", "diffusion", or a plugin's own word; samplers name the families they draw from.
    image_size: height and width of the images, pixels.
    noise_shape: shape of the noise of ONE image.
    """

    family: str
    image_size: int
    noise_shape: tuple[int, ...]

    def save_assets(self, folder: Path) -> None:
        """Writes what building needs beside the weights and the settings. Default: nothing."""

    @property
    def device(self) -> torch.device:
        return device_of(self)


class OneShotGenerator(Generator):
    """`generator(noise (B, *noise_shape), text) -> images`, a deterministic function of the two."""

    family = "one-shot"

    @abstractmethod
    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor: ...


class DiffusionGenerator(Generator):
    """`generator(x_t (B, *noise_shape), t (B,), text) -> prediction`, of the kind `prediction`, under `schedule`."""

    family = "diffusion"
    schedule: Schedule
    prediction: Prediction

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images of x_0; the identity where diffusion runs on pixels."""
        return latents

    def encode(self, images: Tensor) -> Tensor:
        """x_0 of images; the identity where diffusion runs on pixels."""
        return images
