"""Optimizers of a GAN's generator and discriminator."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Adam, Optimizer

from t2i.plugins.common.gan.config import GANConfig


def adam_pair(
    config: GANConfig,
    generator: Iterable[nn.Parameter],
    discriminator: Iterable[nn.Parameter],
    eps: float = 1e-8,
) -> dict[str, Optimizer]:
    """Make one Adam for the generator and one for the discriminator, each with its learning rate.

    Args:
        config: Learning rates and betas.
        generator: Parameters of the generator.
        discriminator: Parameters of the discriminator and of its heads.
        eps: Adam's constant in the denominator.

    Returns:
        The optimizers "discriminator" and "generator".
    """
    betas = (config.beta1, config.beta2)
    return {
        "discriminator": Adam(discriminator, config.lr_d, betas, eps, fused=True),
        "generator": Adam(generator, config.lr_g, betas, eps, fused=True),
    }
