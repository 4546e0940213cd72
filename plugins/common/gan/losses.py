"""Losses of GANs that are told the text. Scores and logits are (B,) or any shape.

Hinge with mismatched pairs and the matching-aware gradient penalty (MA-GP): DF-GAN (Tao et al. 2022), eq. 1 to 3; GALIP
(Tao et al. 2023) shares them. Cross entropy with wrong pairs: StackGAN (Zhang et al. 2017), whose stage II AttnGAN (Xu
et al. 2018) shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """E[relu(1 - D(x, e))] + 1/2 E[relu(1 + D(G(z, e), e))] + 1/2 E[relu(1 + D(x, e'))], from the three scores."""
    return (
        (1 - real).relu().mean()
        + 0.5 * (1 + fake).relu().mean()
        + 0.5 * (1 + mismatched).relu().mean()
    )


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


def cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    """-E[log sigmoid(logits)] of what is to be called real, -E[log(1 - sigmoid(logits))] of what is not."""
    return F.softplus(-logits if real else logits).mean()


def matching_aware_discriminator_loss(real: Tensor, fake: Tensor, wrong: Tensor) -> Tensor:
    """StackGAN's stage I: real + (fake + wrong) / 2, the cross entropies of a conditional output's logits."""
    return (
        cross_entropy(real, real=True)
        + (cross_entropy(fake, real=False) + cross_entropy(wrong, real=False)) / 2
    )


def discriminator_of_pairs_and_images(
    real: Tensor, fake: Tensor, wrong: Tensor, real_image: Tensor, fake_image: Tensor
) -> Tensor:
    """StackGAN's stage II: (real + real_u) / 2 + (fake + wrong + fake_u) / 3, u being an unconditional output."""
    called_real = cross_entropy(real, real=True) + cross_entropy(real_image, real=True)
    called_fake = sum(cross_entropy(logits, real=False) for logits in (fake, wrong, fake_image))
    return called_real / 2 + called_fake / 3
