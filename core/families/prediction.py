"""Targets of diffusion networks (predictions), and the conversions between them.

On the path x_t = alpha x_0 + sigma eps, a network predicts one of these:

    epsilon   eps                              DDPM, eq. 14
    sample    x_0
    v         alpha eps - sigma x_0            Salimans & Ho 2022, section 4; here for any alpha and
    sigma velocity  alpha' x_0 + sigma' eps          d x_t / dt, in the schedule's own t (flow
    matching) score     -eps / sigma                     grad log p(x_t | x_0) (Song et al. 2021)

x_t and any one of them determine x_0 and eps, and so all others, except at the ends of a path:

- sigma = 0: x_t is x_0. "sample" does not determine eps. Nor does "score", which is infinite
  itself, as is the velocity of a variance-preserving path. Everything else that x_t and the
  prediction determine is exact.
- alpha = 0: x_t is eps. "epsilon" and "score" do not determine x_0. Everything else is exact.

What is not determined comes out infinite or not a number.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from t2i.core.families.schedule import Schedule, like

Prediction = Literal["epsilon", "sample", "v", "velocity", "score"]
"""Names of the predictions."""


def target(
    schedule: Schedule, prediction: Prediction, x_0: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """Compute the training target of a network. It is linear in x_0 and eps.

    Args:
        schedule: The path.
        prediction: What the network predicts.
        x_0: Clean images or latents, (B, ...).
        t: Timestep of each, (B,).
        eps: Noise from N(0, I), (B, ...).

    Returns:
        The target, (B, ...).
    """
    if prediction == "epsilon":
        return eps
    if prediction == "sample":
        return x_0
    if prediction == "score":
        return -eps / like(schedule.sigma(t), x_0)
    if prediction == "v":
        return like(schedule.alpha(t), x_0) * eps - like(schedule.sigma(t), x_0) * x_0
    d_alpha, d_sigma = (like(rate, x_0) for rate in schedule.rates(t))
    return d_alpha * x_0 + d_sigma * eps


def predicted_x_0(
    schedule: Schedule, prediction: Prediction, x_t: Tensor, t: Tensor, output: Tensor
) -> Tensor:
    """Compute x_0 from a network's output.

    Args:
        schedule: The path.
        prediction: What the network predicts.
        x_t: Noisy images or latents, (B, ...).
        t: Timestep of each, (B,).
        output: Output of the network at x_t, (B, ...).

    Returns:
        The predicted x_0, (B, ...).
    """
    if prediction == "sample":
        return output
    alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    if prediction == "score":
        return (x_t + sigma**2 * output) / alpha
    if prediction == "v":
        # v = alpha eps - sigma x_0 and x_t = alpha x_0 + sigma eps give (alpha^2 + sigma^2) x_0 =
        # alpha x_t - sigma v.
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
    d_alpha, d_sigma = (like(rate, x_t) for rate in schedule.rates(t))
    return (d_sigma * x_t - sigma * output) / (alpha * d_sigma - sigma * d_alpha)


def predicted_eps(
    schedule: Schedule, prediction: Prediction, x_t: Tensor, t: Tensor, output: Tensor
) -> Tensor:
    """Compute eps from a network's output.

    Args:
        schedule: The path.
        prediction: What the network predicts.
        x_t: Noisy images or latents, (B, ...).
        t: Timestep of each, (B,).
        output: Output of the network at x_t, (B, ...).

    Returns:
        The predicted eps, (B, ...).
    """
    if prediction == "epsilon":
        return output
    alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
    if prediction == "sample":
        return (x_t - alpha * output) / sigma
    if prediction == "score":
        return -sigma * output
    if prediction == "v":
        return (sigma * x_t + alpha * output) / (alpha**2 + sigma**2)
    d_alpha, d_sigma = (like(rate, x_t) for rate in schedule.rates(t))
    return (alpha * output - d_alpha * x_t) / (alpha * d_sigma - sigma * d_alpha)


def converted(
    schedule: Schedule,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    given: Prediction,
    wanted: Prediction,
) -> Tensor:
    """Convert a network's output to another prediction.

    Args:
        schedule: The path.
        x_t: Noisy images or latents, (B, ...).
        t: Timestep of each, (B,).
        output: Output of the network at x_t, (B, ...).
        given: What the network predicts.
        wanted: The prediction to return.

    Returns:
        The converted prediction, (B, ...).
    """
    if given == wanted:
        return output
    if wanted == "sample":
        return predicted_x_0(schedule, given, x_t, t, output)
    eps = predicted_eps(schedule, given, x_t, t, output)
    if wanted in ("epsilon", "score"):
        return target(schedule, wanted, eps, t, eps)  # neither depends on x_0
    return target(schedule, wanted, predicted_x_0(schedule, given, x_t, t, output), t, eps)


def shifted_by_score(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    gradient: Tensor,
) -> Tensor:
    """Shift a prediction as if a gradient had been added to the score (classifier guidance).

    At the same x_t, eps becomes eps - sigma g and x_0 becomes x_0 + (sigma^2 / alpha) g. At pure
    noise (alpha = 0) nothing is shifted. Source: Dhariwal & Nichol 2021, algorithm 2; thesis 2.29.

    Args:
        schedule: The path.
        prediction: What the network predicts.
        x_t: Noisy images or latents, (B, ...).
        t: Timestep of each, (B,).
        output: Output of the network at x_t, (B, ...).
        gradient: The gradient g, (B, ...).

    Returns:
        The shifted prediction, (B, ...).
    """
    alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
    shifted = output + target(
        schedule, prediction, sigma**2 / alpha * gradient, t, -sigma * gradient
    )
    return torch.where(alpha > 0, shifted, output)
