"""Diffusion generators: a network that is called along a path from noise to images. DDPM, score-based models, EDM,
flow matching: what differs is the schedule (the path) and what the network predicts."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import Schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures


class DiffusionGenerator(Generator):
    """`generator(x_t, t, text) -> prediction`, under x_t = alpha(t) x_0 + sigma(t) eps.

    Attributes:
        noise_shape: shape of x_t of one image: pixels or latents.
        schedule: alpha(t) and sigma(t); also says what `t` is (an index, or a real number).
        prediction: what `forward` returns: "epsilon", "sample", "v", "velocity" or "score".
    """

    family = "diffusion"
    noise_shape: tuple[int, ...]
    schedule: Schedule
    prediction: Prediction

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """The prediction (B, *noise_shape) at x_t (B, *noise_shape) and times t (B,), given conditioned text."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images of x_0. Default: x_0 itself, where diffusion runs on pixels."""
        return latents

    def encode(self, images: Tensor) -> Tensor:
        """x_0 of images. Default: the images themselves, where diffusion runs on pixels."""
        return images

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...
