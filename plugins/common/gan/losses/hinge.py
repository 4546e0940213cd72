"""Hinge loss with mismatched pairs.

Source: DF-GAN (Tao et al. 2022, equations 1 to 3) and GALIP (Tao et al. 2023).
"""

from __future__ import annotations

from torch import Tensor


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """Compute the discriminator's hinge loss with mismatched pairs.

    It is E[relu(1 - D(x, e))] + 1/2 E[relu(1 + D(G(z, e), e))] + 1/2 E[relu(1 + D(x, e'))].

    Args:
        real: Scores D(x, e) of real images with their captions.
        fake: Scores D(G(z, e), e) of generated images.
        mismatched: Scores D(x, e') of real images with captions of others.

    Returns:
        The loss, a scalar.
    """
    return (
        (1 - real).relu().mean()
        + 0.5 * (1 + fake).relu().mean()
        + 0.5 * (1 + mismatched).relu().mean()
    )


def hinge_generator(fake: Tensor) -> Tensor:
    """Compute the generator's hinge loss, -E[D(G(z, e), e)].

    Args:
        fake: Scores of generated images.

    Returns:
        The loss, a scalar.
    """
    return -fake.mean()
