"""The family of one-shot generators (GANs, VAEs): one pass from noise to images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures


class OneShotGenerator(Generator):
    """A generator that is called once: `generator(noise, text)` returns images.

    The images are a deterministic function of noise and text. Random numbers inside the network
    (conditioning augmentation, noise of a layer) are part of `noise`: z comes first, then the rest.
    Zeros give the mean image.

    Attributes:
        noise_shape: Shape of the noise of one image.
        inverts: Whether `invert` works.
    """

    family = "one-shot"
    noise_shape: tuple[int, ...]
    inverts: bool = False

    @abstractmethod
    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        """Generate images.

        Args:
            noise: Noise from N(0, I), (B, *noise_shape).
            text: Features of B captions, as `condition` returned them.

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """

    def invert(self, images: Tensor, text: TextFeatures) -> Tensor:
        """Compute the noise that `forward` turns into these images.

        Optional: called only if `inverts` is True.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].
            text: Features of their captions, as `condition` returned them.

        Returns:
            Noise, (B, *noise_shape).

        Raises:
            NotImplementedError: The generator has no inverse.
        """
        raise NotImplementedError(f"{type(self).__name__} turns no images into noise")

    if TYPE_CHECKING:

        def __call__(self, noise: Tensor, text: TextFeatures) -> Tensor: ...
