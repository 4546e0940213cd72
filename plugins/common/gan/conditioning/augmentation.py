"""Conditioning augmentation, which StackGAN and AttnGAN share, and the KL term of Gaussians.

Source: Zhang et al. 2017 (StackGAN), section 3.2.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Compute KL(N(mean, exp logvar) || N(0, I)) of Gaussians with diagonal covariance.

    Args:
        mean: Means, float (B, ...).
        logvar: Log variances, of the same shape.

    Returns:
        The divergence, averaged over images and dimensions alike, a scalar.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


class ConditioningAugmentation(nn.Module):
    """Draws a vector from a Gaussian that depends on the text: c^ = mu(phi) + sigma(phi) eps.

    One linear map gives mu and log sigma^2, followed by a ReLU (StackGAN) or a gated linear unit
    (AttnGAN, whose linear map is twice as wide).

    Args:
        text: Width of text vectors, D.
        c: Width of the result.
        activation: What follows the linear map.
    """

    def __init__(self, text: int, c: int, activation: Literal["relu", "glu"] = "relu") -> None:
        super().__init__()
        self.gated = activation == "glu"
        self.linear = nn.Linear(text, 4 * c if self.gated else 2 * c)

    def forward(self, phi: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a vector for each text.

        Args:
            phi: Text vectors, float (B, D).
            eps: Noise from N(0, I), float (B, c). Zeros give the mean.

        Returns:
            c^, mu and log sigma^2, each float (B, c).
        """
        both = F.glu(self.linear(phi), dim=1) if self.gated else F.relu(self.linear(phi))
        mean, logvar = both.chunk(2, dim=1)
        return mean + (0.5 * logvar).exp() * eps, mean, logvar
