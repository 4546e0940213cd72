"""Cross entropy with wrong pairs, of StackGAN (Zhang et al. 2017).

AttnGAN (Xu et al. 2018) shares that of stage II.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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


def generator_of_pairs_and_images(fake: Tensor, fake_image: Tensor) -> Tensor:
    """Compute the adversarial loss of a generator whose discriminator has both kinds of outputs.

    Args:
        fake: Conditional logits of generated images with their captions.
        fake_image: Unconditional logits of generated images.

    Returns:
        The loss, a scalar: the sum of -E[log sigmoid(logits)] of both.
    """
    return cross_entropy(fake, real=True) + cross_entropy(fake_image, real=True)
