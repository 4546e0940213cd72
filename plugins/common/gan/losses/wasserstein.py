"""Wasserstein loss of a critic, with mismatched pairs.

Source: Arjovsky et al. 2017 and Gulrajani et al. 2017.

The mismatched pairs are ours, after DF-GAN's.
"""

from __future__ import annotations

from torch import Tensor


def wasserstein_critic(real: Tensor, fake: Tensor, mismatched: Tensor | None = None) -> Tensor:
    """Compute the critic's loss, E[D(G)] - E[D(x)].

    With mismatched pairs it is (E[D(G, e)] + E[D(x, e')]) / 2 - E[D(x, e)]: what is called fake
    weighs as much as what is called real. Otherwise a constant added to D would lower the loss
    without end.

    Args:
        real: Scores of real images, of any shape.
        fake: Scores of generated images.
        mismatched: Scores of real images with captions of others. None: there are none.

    Returns:
        The loss, a scalar.
    """
    if mismatched is None:
        return fake.mean() - real.mean()
    return (fake.mean() + mismatched.mean()) / 2 - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """Compute the generator's loss, -E[D(G)].

    Args:
        fake: Scores of generated images.

    Returns:
        The loss, a scalar.
    """
    return -fake.mean()
