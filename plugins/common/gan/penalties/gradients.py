"""Penalties on the gradient of a discriminator's scores: WGAN-GP's, and R1 and R2.

All keep their graph, so that they can be minimised (double backward).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def squared_norms(scores: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Compute the squared L2 norm of the gradient of each score, over all inputs together.

    Args:
        scores: Scores, float (B,), computed from `inputs` row by row.
        inputs: Tensors (B, ...) that require gradients. One that the scores do not depend on
            counts as 0.

    Returns:
        The squared norms, float (B,).
    """
    gradients = torch.autograd.grad(
        scores.sum(), list(inputs), create_graph=True, allow_unused=True
    )
    norms = [g.flatten(1).square().sum(1) for g in gradients if g is not None]
    return torch.stack(norms).sum(0) if norms else torch.zeros_like(scores)


def lipschitz_penalty(scores: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Compute WGAN-GP's penalty E[(|grad D| - 1)^2], which is two-sided.

    Source: Gulrajani et al. 2017, equation 3.

    Args:
        scores: Scores at random points between real and generated images, float (B,).
        inputs: What the scores were computed from (see `squared_norms`): images, and sentences
            where the discriminator takes them.

    Returns:
        The penalty without its weight, a scalar.
    """
    squared = squared_norms(scores, inputs)
    # The square root has no finite gradient at 0.
    return (squared.clamp_min(1e-12).sqrt() - 1).square().mean()


def zero_centred_penalty(scores: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Compute R1 or R2, E[|grad D|^2]: R1 at real images, R2 at generated ones.

    Source: Mescheder et al. 2018, equations 9 and 10, without gamma/2.

    Args:
        scores: Scores of the images, float (B,).
        inputs: The images, or their features, that require gradients.

    Returns:
        The penalty without its weight, a scalar.
    """
    return squared_norms(scores, inputs).mean()


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Interpolate between real and generated images, x^ = x + a (G - x).

    Args:
        real: Real images or features, float (B, ...).
        fake: Generated ones of the same shape.
        share: a of each row, float (B,), from 0 to 1.

    Returns:
        The points, float (B, ...).
    """
    return real + share.view(-1, *[1] * (real.dim() - 1)) * (fake - real)
