"""Losses of text-conditional GANs. Scores and logits have the shape (B,) or any other.

- Hinge loss with mismatched pairs and the matching-aware gradient penalty (MA-GP): DF-GAN (Tao et
  al. 2022), equations 1 to 3, and GALIP (Tao et al. 2023).
- Outline loss: the squared error of what is where, which is ours.
- Cross entropy with wrong pairs: StackGAN (Zhang et al. 2017); AttnGAN (Xu et al. 2018) shares that
  of stage II.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OUTLINE = 8
"""Height and width to which the outline loss averages images, in places."""


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


def matching_aware_penalty(scores: Tensor, inputs: Sequence[Tensor], k: float, p: float) -> Tensor:
    """Compute the matching-aware gradient penalty k E[||grad D||^p] of matching real pairs.

    It keeps its graph, so that it can be minimised (double backward).

    Args:
        scores: Scores of the pairs, computed from `inputs`, float (B,).
        inputs: Images (or their features) and sentences, each (B, ...), requiring gradients. The
            norm is one L2 norm over all inputs of a pair together.
        k: Weight of the penalty.
        p: Power of the norm.

    Returns:
        The penalty, a scalar.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    squared = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    return k * squared.pow(p / 2).mean()  # a square root has no finite gradient at 0


def outline_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Compute the squared error between images that are averaged to 8x8 places.

    It tells the generator directly which colours its caption wants where. What fits into a place,
    such as an outline's exact course, is left to the discriminator.

    Args:
        fake: Generated images in [-1, 1], float (B, 3, H, H).
        real: Real images with the same captions, in the same order and of any size.

    Returns:
        The mean over images, channels and places, a scalar.
    """
    return F.mse_loss(F.adaptive_avg_pool2d(fake, OUTLINE), F.adaptive_avg_pool2d(real, OUTLINE))


def with_outline(
    loss: Tensor, losses: dict[str, Tensor], weight: float, fakes: Sequence[Tensor], real: Tensor
) -> Tensor:
    """Add the outline loss to a generator's loss, if it has a weight.

    Args:
        loss: The generator's loss, a scalar.
        losses: The losses that the step reports. "outline" is added.
        weight: Weight of the outline loss. 0: it is left out.
        fakes: The generated images of each scale, float (B, 3, H, H).
        real: Real images with the same captions, in the same order.

    Returns:
        The loss, with the weighted sum over the scales.
    """
    if not weight:
        return loss
    losses["outline"] = torch.stack([outline_loss(fake, real) for fake in fakes]).sum()
    return loss + weight * losses["outline"]


def cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    """Compute the binary cross entropy of logits that all have the same label.

    Args:
        logits: The logits.
        real: Whether the label is "real": -E[log sigmoid(logits)]. Else it is "fake": -E[log(1 -
            sigmoid(logits))].

    Returns:
        The loss, a scalar.
    """
    return F.softplus(-logits if real else logits).mean()


def matching_aware_discriminator_loss(real: Tensor, fake: Tensor, wrong: Tensor) -> Tensor:
    """Compute the discriminator's loss in StackGAN's stage I: real + (fake + wrong) / 2.

    Args:
        real: Logits of real images with their captions.
        fake: Logits of generated images with their captions.
        wrong: Logits of real images with captions of others.

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
    """Compute the discriminator's loss in StackGAN's stage II, with unconditional outputs u.

    It is (real + real_u) / 2 + (fake + wrong + fake_u) / 3.

    Args:
        real: Conditional logits of real images with their captions.
        fake: Conditional logits of generated images with their captions.
        wrong: Conditional logits of real images with captions of others.
        real_image: Unconditional logits of real images.
        fake_image: Unconditional logits of generated images.

    Returns:
        The loss, a scalar.
    """
    called_real = cross_entropy(real, real=True) + cross_entropy(real_image, real=True)
    called_fake = sum(cross_entropy(logits, real=False) for logits in (fake, wrong, fake_image))
    return called_real / 2 + called_fake / 3
