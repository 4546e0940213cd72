"""Losses of text-conditional GANs.

- Hinge loss with mismatched pairs, and the matching-aware gradient penalty (MA-GP): DF-GAN (Tao et
  al. 2022), eq. 1 to 3, and GALIP (Tao et al. 2023).
- Cross entropy with mismatched pairs: StackGAN (Zhang et al. 2017). AttnGAN (Xu et al. 2018) uses
that of stage II.

D is the discriminator, G the generator, x a real image, z noise, e the sentence that matches x, and
e' one that does not. Scores and logits have any shape; the losses average over all their elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """Return the hinge loss of the discriminator.

    E[relu(1 - D(x, e))] + 1/2 E[relu(1 + D(G(z, e), e))] + 1/2 E[relu(1 + D(x, e'))]. Source: Tao
    et al. 2022.

    Args:
        real: D(x, e), scores of real images with their sentences.
        fake: D(G(z, e), e), scores of generated images with their sentences.
        mismatched: D(x, e'), scores of real images with sentences of other images.

    Returns:
        The loss, a scalar.
    """
    return (
        (1 - real).relu().mean()
        + 0.5 * (1 + fake).relu().mean()
        + 0.5 * (1 + mismatched).relu().mean()
    )


def hinge_generator(fake: Tensor) -> Tensor:
    """Return the hinge loss of the generator, -E[D(G(z, e), e)].

    Args:
        fake: D(G(z, e), e), scores of generated images with their sentences.

    Returns:
        The loss, a scalar.
    """
    return -fake.mean()


def matching_aware_penalty(scores: Tensor, inputs: Sequence[Tensor], k: float, p: float) -> Tensor:
    """Return the matching-aware gradient penalty, k E[||grad D||^p] at matching real pairs.

    ||.|| is the L2 norm of an example's gradients with respect to all inputs together. The result has a graph of
    gradients, so it can be minimised (double backward). Source: Tao et al. 2022.

    Args:
        scores: D(x, e) of the B pairs, computed from `inputs`.
        inputs: Images (or their features) and sentences, each (B, ...) and requiring gradients.
        k: Weight of the penalty.
        p: Power of the norm.

    Returns:
        The penalty, a scalar.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    squared = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    return k * squared.pow(p / 2).mean()  # no square root: its gradient at 0 is NaN


def cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    """Return the binary cross entropy of logits that all have the same label.

    -E[log sigmoid(logits)] for the label real, -E[log(1 - sigmoid(logits))] for fake.

    Args:
        logits: Logits of "real".
        real: Whether the label is real.

    Returns:
        The loss, a scalar.
    """
    return F.softplus(-logits if real else logits).mean()


def matching_aware_discriminator_loss(real: Tensor, fake: Tensor, wrong: Tensor) -> Tensor:
    """Return the discriminator's loss of StackGAN's stage I, real + (fake + wrong) / 2.

    The terms are cross entropies of the logits of a discriminator that is given the sentence.

    Args:
        real: Logits of real images with their sentences.
        fake: Logits of generated images with their sentences.
        wrong: Logits of real images with sentences of other images.

    Returns:
        The loss, a scalar.
    """
    return (
        cross_entropy(real, real=True)
        + (cross_entropy(fake, real=False) + cross_entropy(wrong, real=False)) / 2
    )


def discriminator_of_pairs_and_images(
    real: Tensor, fake: Tensor, wrong: Tensor, real_image: Tensor, fake_image: Tensor
) -> Tensor:
    """Return the discriminator's loss of StackGAN's stage II.

    (real + real_image) / 2 + (fake + wrong + fake_image) / 3, of the cross entropies.

    Args:
        real: Logits of real images with their sentences.
        fake: Logits of generated images with their sentences.
        wrong: Logits of real images with sentences of other images.
        real_image: Unconditional logits of real images.
        fake_image: Unconditional logits of generated images.

    Returns:
        The loss, a scalar.
    """
    called_real = cross_entropy(real, real=True) + cross_entropy(real_image, real=True)
    called_fake = sum(cross_entropy(logits, real=False) for logits in (fake, wrong, fake_image))
    return called_real / 2 + called_fake / 3
