"""Learned variances of the steps of a chain, and the variational bound that trains them.

Source: Nichol & Dhariwal 2021, section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from t2i.core.families.schedule import DiscreteSchedule, like

HALF_LEVEL = 1 / 255
"""Half the distance of two 8-bit values in [-1, 1]."""

LEAST = 1e-12
"""Least probability whose logarithm is taken."""


def extremes(schedule: DiscreteSchedule) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the smallest and the largest variance of each step of a chain.

    beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t). That of the first step is 0; its logarithm is
    that of the second.

    Args:
        schedule: The chain.

    Returns:
        log beta~_t and log beta_t, float64 (T,) each.
    """
    abar = schedule.alphas_cumprod
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    least = beta * (1 - before) / (1 - abar)
    if len(least) > 1:
        least = torch.cat([least[1:2], least[1:]])
    return least.clamp_min(torch.finfo(least.dtype).tiny).log(), beta.log()


def log_variance(schedule: DiscreteSchedule, t: Tensor, v: Tensor) -> Tensor:
    """Compute the learned log-variance of a step, k log beta_t + (1 - k) log beta~_t.

    Source: Nichol & Dhariwal 2021, eq. 15, with k = (v + 1) / 2 as in its code.

    Args:
        schedule: The chain.
        t: Timesteps, int64 (B,).
        v: The network's output, float (B, ...).

    Returns:
        The log-variance, float (B, ...).
    """
    least, most = (like(table.to(t.device)[t], v) for table in extremes(schedule))
    k = (v + 1) / 2
    return k * most + (1 - k) * least


def variational_bits(
    schedule: DiscreteSchedule, z_0: Tensor, z_t: Tensor, t: Tensor, x_0: Tensor, v: Tensor
) -> Tensor:
    """Compute the terms of the variational bound, in bits for each value.

    KL(q(z_{t-1} | z_t, z_0) || p(z_{t-1} | z_t)), and for the first timestep the negative
    log-likelihood of 8-bit values. Source: Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021.

    Args:
        schedule: The chain.
        z_0: Clean images, float (B, ...).
        z_t: Noisy images, float (B, ...).
        t: Timesteps, int64 (B,).
        x_0: The predicted clean images, float (B, ...).
        v: The predicted variance (see `log_variance`), float (B, ...).

    Returns:
        The terms, float (B,).
    """
    abar = schedule.alphas_cumprod
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    of_x_0, of_z_t = (
        like(table.to(t.device)[t], z_0)
        for table in (
            beta * before.sqrt() / (1 - abar),
            (1 - before) * (1 - beta).sqrt() / (1 - abar),
        )
    )
    log_true = like(extremes(schedule)[0].to(t.device)[t], z_0)
    log_ours = log_variance(schedule, t, v)
    mean = of_x_0 * x_0 + of_z_t * z_t
    apart = of_x_0 * (z_0 - x_0)
    kl = 0.5 * (
        log_ours - log_true - 1 + (log_true - log_ours).exp() + apart**2 * (-log_ours).exp()
    )
    nll = -log_of_levels(z_0, mean, 0.5 * log_ours)
    first = (t == 0).view(-1, *[1] * (z_0.dim() - 1))
    return torch.where(first, nll, kl).flatten(1).mean(1) / math.log(2)


def log_of_levels(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Compute the log-probability of 8-bit values under a Gaussian.

    Each value stands for the interval around it; the first and the last reach to infinity. The
    distribution function is approximated by a hyperbolic tangent, as in the paper's code.

    Args:
        x: Values in [-1, 1], float (B, ...).
        mean: Means, float (B, ...).
        log_std: Logarithms of the standard deviations, float (B, ...).

    Returns:
        Log-probabilities in nats, float (B, ...).
    """
    above, below = (
        _cdf((x - mean + side) * (-log_std).exp()) for side in (HALF_LEVEL, -HALF_LEVEL)
    )
    inside = (above - below).clamp_min(LEAST).log()
    lowest, highest = above.clamp_min(LEAST).log(), (1 - below).clamp_min(LEAST).log()
    return torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inside))


def _cdf(x: Tensor) -> Tensor:
    """Approximate the distribution function of N(0, 1)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
