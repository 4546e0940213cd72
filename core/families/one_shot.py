"""One-shot generators: one pass from noise to images. GANs, VAEs and normalising flows."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures


class OneShotGenerator(Generator):
    """`generator(noise, text) -> images`, a deterministic function of the two.

    Draws inside the network (conditioning augmentation, noise of a layer) are part of its noise: z first, the rest
    behind it. Zeros give the mean image.

    Attributes:
        noise_shape: shape of the noise of one image.
        inverts: whether `invert` works: true of flows.
    """

    family = "one-shot"
    noise_shape: tuple[int, ...]
    inverts: bool = False

    @abstractmethod
    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] from noise (B, *noise_shape) and conditioned text."""

    def invert(self, images: Tensor, text: TextFeatures) -> Tensor:
        """The noise (B, *noise_shape) that `forward` turns into these images. Only where `inverts` is true."""
        raise NotImplementedError(f"{type(self).__name__} turns no images into noise")

    if TYPE_CHECKING:

        def __call__(self, noise: Tensor, text: TextFeatures) -> Tensor: ...
