"""Hinge loss with mismatched pairs.

Source: DF-GAN (Tao et al. 2022, equations 1 to 3) and GALIP (Tao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from t2i.core.interfaces.trainer import Losses
from t2i.plugins.common.gan.penalties.matching_aware import matching_aware_penalty


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


def penalised_hinge(
    scores: tuple[Tensor, Tensor, Tensor],
    inputs: Sequence[Tensor] | None,
    k: float,
    p: float,
    pack: int,
) -> tuple[Tensor, Losses]:
    """Compute the discriminator's loss, hinge plus MA-GP, as a `Critic` returns it.

    Args:
        scores: Scores of real, generated and mismatched pairs.
        inputs: Images (or features) and sentences of the real pairs, which require gradients. None:
            without MA-GP.
        k: Weight of MA-GP.
        p: Power of its norm.
        pack: Number of images that are scored together.

    Returns:
        The loss, a scalar, and what the log shows.
    """
    hinge = hinge_discriminator(*scores)
    means = zip(("real", "fake", "mismatched"), scores, strict=True)
    log = {"discriminator": hinge, **{name: score.mean() for name, score in means}}
    if inputs is None:
        return hinge, log
    penalty = matching_aware_penalty(scores[0], inputs, k, p, pack)
    return hinge + penalty, {**log, "penalty": penalty}
