"""Mixed precision: whether bfloat16 pays on a machine, by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from t2i.core.devices import best_precision
from t2i.core.engine.random_state import random_state, set_random_state
from t2i.core.engine.trial import Trial
from t2i.core.io import launched
from t2i.core.runs.configure import RunConfig

ENOUGH = 0.9
"""bfloat16 is taken if its step takes at most this share of the time of float32's."""

ROUNDS = 5
"""Number of steps that are timed in each precision, in turns."""

SECONDS = 20.0
"""After this time no further round begins."""

MOST = 16
"""Most images in the steps that are timed, where the batch size is not known yet."""

Say = Callable[[str], None]


def has_bf16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 itself, so that it may be faster than float32.

    Args:
        device: The device.

    Returns:
        Whether it does. A processor needs AVX-512 BF16 or AMX.
    """
    if device.type != "cpu":
        return best_precision(device) == "bf16"
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def fit_precision(config: RunConfig, device: torch.device, say: Say, sized: bool) -> RunConfig:
    """Choose the precision by measurement (`--precision auto`).

    Steps of the last stage are timed in float32 and in bfloat16, in turns, on networks of their
    own. Nothing is measured where the device does not compute bfloat16 itself. The global random
    generators are left as they were. Several processes take what suits the device.

    Args:
        config: The configuration of the run.
        device: The device.
        say: Takes a line that tells the choice and the reason.
        sized: Whether the configuration's batch size is final. If not, a small batch is timed.

    Returns:
        The configuration with the precision "no" or "bf16".
    """
    if not has_bf16(device):
        say(f"precision float32 (auto): {device} does not compute bfloat16 itself")
        return _with(config, "no")
    if launched.several():  # they might choose differently
        chosen = best_precision(device)
        say(f"precision {_name(chosen)} (auto): several processes do not time it")
        return _with(config, chosen)
    state = random_state()
    try:
        share = measured_share(config, device, sized)
    except torch.OutOfMemoryError:
        say("precision bf16 (auto): a batch in float32 does not fit, so it was not timed")
        return _with(config, "bf16")
    finally:
        set_random_state(state)
    chosen = "bf16" if share <= ENOUGH else "no"
    say(
        f"precision {_name(chosen)} (auto): a step in bf16 takes {share:.2f} of the time in float32"
    )
    return _with(config, chosen)


def measured_share(config: RunConfig, device: torch.device, sized: bool) -> float:
    """Time steps of the last stage in both precisions, in turns.

    Args:
        config: The configuration of the run.
        device: The device.
        sized: Whether the configuration's batch size is final.

    Returns:
        Median time of a step in bfloat16 divided by that in float32.
    """
    trials = [Trial(_with(config, name), None, device) for name in ("no", "bf16")]
    settings = trials[0].settings
    part = settings.batch_size // settings.accumulate
    steps = [trial.steps(part if sized else min(part, MOST)) for trial in trials]
    for step in steps:
        step()  # the first makes the optimizers' tensors
    shares: list[float] = []
    until = time.perf_counter() + SECONDS
    while not shares or (len(shares) < ROUNDS and time.perf_counter() < until):
        float32, bf16 = (_seconds(step) for step in steps)
        shares.append(bf16 / float32)
    return median(shares)


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _name(precision: str) -> str:
    return "float32" if precision == "no" else precision


def _with(config: RunConfig, precision: str) -> RunConfig:
    return replace(config, settings=config.settings.with_(precision=precision))
