"""Functions of samplers that unmask a fixed number of tokens in each step."""

from __future__ import annotations

from torch import Tensor

from t2i.core.families.token_schedule import TokenSchedule
from t2i.core.interfaces.noise import Noise

REPLACED = 1e-3
"""Largest share of replaced tokens with which a schedule still counts as one that only masks.

VQ-Diffusion's released schedule has 1e-6.
"""


def replaces(schedule: TokenSchedule, steps: int | None) -> bool:
    """Return whether a chain replaces tokens, and not only masks them.

    Args:
        schedule: The schedule.
        steps: Number of sampling steps. None: the schedule's own.

    Returns:
        Whether more than REPLACED of the tokens are replaced at any of its timesteps.
    """
    replaced = schedule.bbar(schedule.times(steps)) * schedule.vocabulary
    return bool((replaced > REPLACED).any())


def masked_left(length: int, gbar: Tensor) -> list[int]:
    """Return how many tokens are masked after each step of a chain.

    The number is floor(gbar * length), but smaller by at least one than after the step before.
    At least one token is masked until the last step, which leaves none.

    Args:
        length: Tokens of one image.
        gbar: Probability that a token is masked, at each timestep of the chain, noisiest first,
            (n + 1,).

    Returns:
        One number for each of the n steps; the last is 0.
    """
    left = [length]
    for share in gbar[1:-1].tolist():
        left.append(max(1, min(int(length * share), left[-1] - 1)))
    return [*left[1:], 0]


def gumbel(noise: Noise, step: int, length: int) -> Tensor:
    """Draw from the standard Gumbel distribution.

    Args:
        noise: Source of the random numbers, with one row for each of B images.
        step: Step of the chain, from 0.
        length: Tokens of one image.

    Returns:
        The random numbers, float64 (B, length).
    """
    return -(-noise.uniform("confidence", step, (length,)).double().log()).log()
