"""What a network predicts along a path x_t = alpha x_0 + sigma eps, and the way from each prediction to each other one.

    epsilon   eps                              DDPM, eq. 14
    sample    x_0
    v         alpha eps - sigma x_0            Salimans & Ho 2022, section 4; here for any alpha and
    sigma velocity  alpha' x_0 + sigma' eps          d x_t / dt, in the schedule's own t (flow
    matching) score     -eps / sigma                     grad log p(x_t | x_0) (Song et al. 2021)

Two numbers, x_0 and eps, are behind all of them; x_t and any one prediction give both, but at the
ends of a path:
- sigma = 0: x_t is x_0. "sample" says nothing of eps there, nor does "score", whose own value is
  infinite (so is the velocity of a variance-preserving path). Whatever else follows from x_t and
  the prediction is exact.
- alpha = 0: x_t is eps. "epsilon" and "score" say nothing of x_0 there; all else is exact.
Where there is no limit, the result is infinite or not a number.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from t2i.core.families.schedule import Schedule, like

Prediction = Literal["epsilon", "sample", "v", "velocity", "score"]


def target(
    schedule: Schedule, prediction: Prediction, x_0: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """What a network is to predict (B, ...) at times t (B,), for x_0 and eps (B, ...). Linear in the two."""
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
    """x_0 (B, ...) as implied by a network's output (B, ...) at x_t (B, ...)."""
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
    """eps (B, ...) as implied by a network's output (B, ...) at x_t (B, ...)."""
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
    """A network's output at x_t, a prediction of the kind `given`, as the kind `wanted` (B, ...)."""
    if given == wanted:
        return output
    if wanted == "sample":
        return predicted_x_0(schedule, given, x_t, t, output)
    eps = predicted_eps(schedule, given, x_t, t, output)
    if wanted in ("epsilon", "score"):
        return target(schedule, wanted, eps, t, eps)  # x_0 has no part in them
    return target(schedule, wanted, predicted_x_0(schedule, given, x_t, t, output), t, eps)


def shifted_by_score(
    schedule: Schedule,
    prediction: Prediction,
    x_t: Tensor,
    t: Tensor,
    output: Tensor,
    gradient: Tensor,
) -> Tensor:
    """The prediction after `gradient` (B, ...) was added to the score: classifier guidance (thesis 2.29; Dhariwal &
    Nichol 2021, algorithm 2): eps^ = eps - sigma g at the same x_t, and so x_0^ = x_0 + (sigma^2 /
    alpha) g.
    """
    alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
    return output + target(schedule, prediction, sigma**2 / alpha * gradient, t, -sigma * gradient)
