"""Conditioning augmentation of StackGAN (Zhang et al. 2017, section 3.2) and AttnGAN, and its KL
term."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the divergence KL(N(mean, diag(exp logvar)) || N(0, I)).

    Args:
        mean: Means of the Gaussians, float (B, ...).
        logvar: Logarithms of their variances, float (B, ...).

    Returns:
        The divergence averaged over images and dimensions, a scalar.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


class ConditioningAugmentation(nn.Module):
    """Sample a condition from a Gaussian that depends on the text: c^ = mu(phi) + sigma(phi) eps.

    One linear map and an activation give mu and log sigma^2. Source: Zhang et al. 2017, section
    3.2.

    Args:
        text: Width D of a text vector phi.
        c: Width of the condition.
        activation: "relu" (StackGAN), or "glu", a gated linear unit behind a linear map twice as
            wide (AttnGAN).
    """

    def __init__(self, text: int, c: int, activation: Literal["relu", "glu"] = "relu") -> None:
        super().__init__()
        self.gated = activation == "glu"
        self.linear = nn.Linear(text, 4 * c if self.gated else 2 * c)

    def forward(self, phi: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample the conditions.

        Args:
            phi: Text vectors, float (B, D).
            eps: Standard normal noise, float (B, c). Zeros give the mean.

        Returns:
            c^, mu and log sigma^2, each float (B, c).
        """
        both = F.glu(self.linear(phi), dim=1) if self.gated else F.relu(self.linear(phi))
        mean, logvar = both.chunk(2, dim=1)
        return mean + (0.5 * logvar).exp() * eps, mean, logvar
