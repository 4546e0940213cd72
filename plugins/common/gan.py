"""Losses of matching-aware GANs: hinge with mismatched pairs, and the matching-aware gradient penalty (MA-GP).

DF-GAN (Tao et al. 2022), eq. 1 to 3; GALIP (Tao et al. 2023) shares them. Scores are (B,) or any shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """E[relu(1 - D(x, e))] + 1/2 E[relu(1 + D(G(z, e), e))] + 1/2 E[relu(1 + D(x, e'))], from the three scores."""
    return (1 - real).relu().mean() + 0.5 * (1 + fake).relu().mean() + 0.5 * (1 + mismatched).relu().mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-E[D(G(z, e), e)], from the score."""
    return -fake.mean()


def matching_aware_penalty(scores: Tensor, inputs: Sequence[Tensor], k: float, p: float) -> Tensor:
    """k E[||grad D||^p] at the matching real pairs, with a graph, so that it can be minimised (double backward).

    scores: D of the pairs, computed from `inputs` (images or their features, and sentences), each (B, ...) and
    requiring gradients. The norm is one L2 norm over an image's gradients of all inputs together.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    squared = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    return k * squared.pow(p / 2).mean()  # no square root: its gradient at 0 is not a number
