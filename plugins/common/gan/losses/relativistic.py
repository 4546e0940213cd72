"""Relativistic pairing loss of R3GAN (Huang et al. 2024), with mismatched pairs, which are ours."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def relativistic_discriminator(
    real: Tensor, fake: Tensor, mismatched: Tensor | None = None
) -> Tensor:
    """Compute the discriminator's loss, E[softplus(D(G) - D(x))], pair by pair.

    With mismatched pairs it is the mean of that and of E[softplus(D(x, e') - D(x, e))].

    Args:
        real: Scores of real images.
        fake: Scores of generated images, one for each real one.
        mismatched: Scores of the real images with captions of others. None: there are none.

    Returns:
        The loss, a scalar.
    """
    loss = F.softplus(fake - real).mean()
    return loss if mismatched is None else (loss + F.softplus(mismatched - real).mean()) / 2


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the generator's loss, E[softplus(D(x) - D(G))].

    Args:
        real: Scores of real images.
        fake: Scores of generated images, one for each real one.

    Returns:
        The loss, a scalar.
    """
    return F.softplus(real - fake).mean()
