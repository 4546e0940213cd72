"""Conditioning augmentation (StackGAN, Zhang et al. 2017, section 3.2), which AttnGAN shares, and the KL term of
Gaussians with a diagonal covariance."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp logvar) || N(0, I)), averaged over images and dimensions alike."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


class ConditioningAugmentation(nn.Module):
    """c^ = mu(phi) + sigma(phi) eps: text vectors phi (B, D) and eps (B, c) -> c^, mu and log sigma^2, each (B, c).

    One linear map gives both, behind a ReLU (StackGAN) or a gated linear unit (AttnGAN, whose map is twice as wide).
    eps = 0 gives the mean.
    """

    def __init__(self, text: int, c: int, activation: Literal["relu", "glu"] = "relu") -> None:
        super().__init__()
        self.gated = activation == "glu"
        self.linear = nn.Linear(text, 4 * c if self.gated else 2 * c)

    def forward(self, phi: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = F.glu(self.linear(phi), dim=1) if self.gated else F.relu(self.linear(phi))
        mean, logvar = both.chunk(2, dim=1)
        return mean + (0.5 * logvar).exp() * eps, mean, logvar
