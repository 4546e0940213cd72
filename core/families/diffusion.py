"""The family of diffusion generators: a network is called along a path from noise to images.

DDPM, score-based models, EDM and flow matching differ in the schedule (the path) and in what the
network predicts.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import Schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures


class DiffusionGenerator(Generator):
    """A generator that denoises: `generator(x_t, t, text)` predicts x_0, eps or a mix of them.

    Noisy images are x_t = alpha(t) x_0 + sigma(t) eps. They are pixels or latents.

    Attributes:
        noise_shape: Shape of x_t of one image.
        schedule: alpha(t) and sigma(t). It also determines what `t` is: an index or a real number.
        prediction: What `forward` returns: "epsilon", "sample", "v", "velocity" or "score" (see
            `prediction.py`).
        learned_range: Whether the network also predicts the variance of the steps of a chain. Then
            `ranged` returns it.
    """

    family = "diffusion"
    noise_shape: tuple[int, ...]
    schedule: Schedule
    prediction: Prediction
    learned_range: bool = False

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Predict what `prediction` names.

        Args:
            x_t: Noisy images or latents, (B, *noise_shape).
            t: Timestep of each image, (B,).
            text: Features of B captions, as `condition` returned them.

        Returns:
            The prediction, (B, *noise_shape).
        """

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Predict what `prediction` names, and the variance of the chain's step from x_t.

        Only generators with `learned_range` have this method.

        Args:
            x_t: Noisy images or latents, (B, *noise_shape).
            t: Timestep of each image, (B,).
            text: Features of B captions, as `condition` returned them.

        Returns:
            The prediction, (B, *noise_shape), and v, (B, *noise_shape): -1 stands for the variance
            beta~_t, 1 for beta_t, and numbers between them for those whose logarithm is in
            proportion. Source: Nichol & Dhariwal 2021, eq. 15.

        Raises:
            NotImplementedError: The network predicts no variance.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no variance")

    def shape_of(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        """Return the shape of x_t for images of a size.

        Args:
            size: Height and width in pixels, multiples of `size_step`. None: `image_size` both.

        Returns:
            The shape for one image: `noise_shape`, with its two last axes in proportion.
        """
        if size is None or size == (self.image_size, self.image_size):
            return self.noise_shape
        *channels, height, width = self.noise_shape
        return (
            *channels,
            height * size[0] // self.image_size,
            width * size[1] // self.image_size,
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Turn x_0 into images. By default x_0 is the images.

        Args:
            latents: x_0, (B, *noise_shape).

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """
        return latents

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into x_0. By default x_0 is the images.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            x_0, (B, *noise_shape).
        """
        return images

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...
