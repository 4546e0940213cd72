"""Bounds on the log-likelihood: the latents' terms, free bits, warm-up, importance weights.

Source: Kingma & Welling 2014; Kingma et al. 2016 (free bits); Burda et al. 2016 (importance
weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from t2i.plugins.common.variational.config import BoundConfig
from t2i.plugins.common.variational.gaussian import Gaussian, gaussian_kl


class Latent(NamedTuple):
    """A group of latents of B images.

    Attributes:
        q: The posterior q(z | x, ...).
        p: The prior p(z | ...).
        z: The draw from the posterior.
    """

    q: Gaussian
    p: Gaussian
    z: Tensor


def kl_by_map(latents: Sequence[Latent]) -> Tensor:
    """Compute the KL of each latent feature map, summed over its places.

    Args:
        latents: Groups of latents, (B, C, ...) each.

    Returns:
        The divergences, float (B, number of all maps).
    """
    return torch.cat(
        [gaussian_kl(each.q, each.p).flatten(2).sum(2) if each.z.dim() > 2
         else gaussian_kl(each.q, each.p) for each in latents],
        dim=1,
    )  # fmt: skip


def with_free_bits(maps: Tensor, least: float) -> Tensor:
    """Sum the KL of feature maps, each of which counts as `least` if its mean is below.

    The mean over the batch is compared, not the KL of an image or of a dimension.

    Args:
        maps: KL of each image and map, float (B, M), as `kl_by_map` returns it. With several
            processes, the rows of all of them.
        least: Least KL of a map in nats. 0: no floor.

    Returns:
        The KL of an image, a scalar.
    """
    means = maps.mean(0)
    return (means.clamp_min(least) if least else means).sum()


def kl_weight(config: BoundConfig, progress: float) -> float:
    """Return the weight of the KL term at a moment of the training.

    Args:
        config: The settings `beta` and `kl_warmup`.
        progress: Progress of the stage, 0 to 1.

    Returns:
        `beta`, or a part of it during the warm-up.
    """
    warm = min(1.0, progress / config.kl_warmup) if config.kl_warmup else 1.0
    return config.beta * warm


def log_ratio(latents: Sequence[Latent]) -> Tensor:
    """Compute log p(z) - log q(z | x) of the draws.

    Args:
        latents: Groups of latents.

    Returns:
        One number for each image, (B,). Its mean over draws is minus the KL.
    """
    ratios = [
        (each.p.log_prob(each.z) - each.q.log_prob(each.z)).flatten(1).sum(1) for each in latents
    ]
    return torch.stack(ratios).sum(0)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Compute the importance-weighted bound on log p(x): log mean_k p(x, z_k) / q(z_k | x).

    Args:
        log_weights: log p(x | z_k) + log p(z_k) - log q(z_k | x), float (K, B).

    Returns:
        The bound, (B,). It rises to log p(x) as K grows, in expectation.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))
