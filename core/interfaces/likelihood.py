"""The interface of log-likelihoods: how probable a model finds an image, given its caption.

Every family can implement it: diffusion models by the probability flow, flows exactly, VAEs by a
bound, autoregressive models of pixels exactly. `ModelSpec.likelihood` declares it, or the generator
makes it (`Generator.likelihood`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures

Kind = Literal["exact", "estimate", "bound"]
"""What a model computes: -log p itself, an unbiased estimate of it, or an upper bound."""

LEVELS = 256
"""Values that a channel of an 8-bit image may have."""


class Likelihood(ABC):
    """The base class: -log p of 8-bit images under a model.

    Attributes:
        kind: What `nats` computes.
    """

    kind: Kind

    @abstractmethod
    def nats(self, images: Tensor, text: TextFeatures, noise: Noise) -> Tensor:
        """Compute -log p(image | caption), with natural logarithms.

        p is a probability of 8-bit images. A model with a density adds the volume of an image's
        cell (`dequantised`). The result for an image does not depend on the others in its batch.

        Args:
            images: Images, uint8 (B, 3, H, W), of the model's size.
            text: Features of their B captions, as `Generator.condition` returned them.
            noise: Source of every random number, one row for each image.

        Returns:
            -log p of each image, float64 (B,), on the CPU.

        Raises:
            UserError: The images have another size than the model's.
        """

    @abstractmethod
    def protocol(self) -> Mapping[str, Any]:
        """Describe how -log p is computed. Results are compared only if this is equal.

        Returns:
            JSON values by name: "dequantisation" ("uniform", or "none" of models of discrete values
            and of densities of noisy data), and what else the result depends on, such as the noise
            in the data, or the solver and its tolerances. "bit_depth" is 8 if it is left out; null
            of densities of anything but pixels.
        """

    def dims(self, values: int) -> int:
        """Return the number of values among which the bits of an image are divided.

        Args:
            values: Number of values in an image, 3 H W.

        Returns:
            `values`, or the number of latents of an image if the density is of latents.
        """
        return values


def dequantised(images: Tensor, noise: Noise) -> tuple[Tensor, float]:
    """Add uniform noise to 8-bit images, so that a density of real numbers can be compared.

    x = (k + U) / 128 - 1 for a level k and U from U[0, 1). For a density p of x in [-1, 1], the
    mean of -log p(x) + D log 128 is an upper bound of -log P(k), and log 128 is 7 bits. Source:
    Theis et al. 2016, section 3.1.

    Args:
        images: Images, uint8 (B, 3, H, W).
        noise: Source of U: the draw "dequantise".

    Returns:
        x, float (B, 3, H, W) in [-1, 1), and D log 128, which is added to -log p(x).
    """
    u = noise.uniform("dequantise", 0, images.shape[1:])
    return (images.to(u) + u) / (LEVELS / 2) - 1, images[0].numel() * math.log(LEVELS / 2)


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Convert -log p to bits per dimension.

    Args:
        nats: -log p, (B,).
        dims: Number of values in an image, D = 3 H W.

    Returns:
        -log2 p / D, (B,).
    """
    return nats / (dims * math.log(2))
