"""Respacing: which timesteps of a discrete schedule a chain visits, in ADM's notation.

Source: Nichol & Dhariwal 2021, section 4; "fast27": Nichol et al. 2022 (GLIDE).
"""

from __future__ import annotations

import re

from t2i.core.errors import UserError

FAST27 = "10,10,3,2,2"
"""Sections of "fast27", whose last timestep T - 1 is replaced by T - 3."""


def respaced_steps(respacing: str) -> int:
    """Return how many timesteps a respacing has.

    Args:
        respacing: "N", "a,b,...", "ddimN" or "fast27".

    Returns:
        The number, at least 1.

    Raises:
        ValueError: It is none of these.
    """
    if respacing == "fast27":
        return respaced_steps(FAST27)
    if match := re.fullmatch(r"ddim(\d{1,7})", respacing):
        steps = int(match[1])
    elif re.fullmatch(r"\d{1,7}(,\d{1,7}){0,999}", respacing):
        steps = sum(int(count) for count in respacing.split(","))
    else:
        raise ValueError(f"'{respacing}' is none of N, a,b,.. (numbers of steps), ddimN and fast27")
    if steps < 1:
        raise ValueError(f"'{respacing}' has no steps")
    return steps


def respaced(timesteps: int, respacing: str) -> list[int]:
    """Return the timesteps of a respacing.

    Args:
        timesteps: T of the schedule.
        respacing: "N": N timesteps, evenly spaced, with both ends. "a,b,...": a of the first
            section, b of the next, and so on, where the sections are as long as each other. The
            first is the clean end. "ddimN": N timesteps, by a whole number apart, from 0. "fast27":
            the 27 of GLIDE.

    Returns:
        Timesteps, ascending, from 0 to T - 1.

    Raises:
        UserError: The schedule has no such timesteps.
    """
    where = f"respacing = {respacing}"
    if respacing == "fast27":
        return [*respaced(timesteps, FAST27)[:-1], timesteps - 3]
    if respacing.startswith("ddim"):
        wanted = int(respacing.removeprefix("ddim"))
        for stride in range(1, timesteps + 1):
            even = range(0, timesteps, stride)
            if len(even) == wanted:
                return list(even)
        raise UserError(f"{where}: no whole number makes {wanted} steps of {timesteps}")
    counts = [int(count) for count in respacing.split(",")]
    chosen: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        size = timesteps // len(counts) + (i < timesteps % len(counts))
        if count > size:
            raise UserError(f"{where}: {count} steps of a section of {size} timesteps")
        between, at = (size - 1) / (count - 1) if count > 1 else 1.0, 0.0
        for _ in range(count):
            chosen.append(start + round(at))
            at += between  # added up as in the paper's code, whose rounding decides some indexes
        start += size
    return chosen
