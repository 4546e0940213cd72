"""The largest batch that fits an accelerator's memory, measured by real training steps."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from t2i.core.engine.trial import Trial
from t2i.core.errors import UserError
from t2i.core.models.building import stage_settings, stages_of
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset
from t2i.core.settings import ModelConfig

PROBES = (2, 4, 8)
"""Batch sizes that are measured."""

SHARE = 0.85
"""Share of the free memory that a step may take; the rest is for sampling and fragments."""

MOST = 4096
"""Largest batch that is chosen."""

Say = Callable[[str], None]


class Meter(Protocol):
    """Measures the memory of a device."""

    def free(self) -> int:
        """Return the memory that a run can use.

        Returns:
            Bytes.
        """
        ...

    def peak(self, work: Callable[[], None]) -> int:
        """Run a function and measure its memory.

        Args:
            work: The function.

        Returns:
            Bytes: the largest amount in use meanwhile.
        """
        ...


class CudaMeter:
    """Measures the memory of a CUDA device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Return the memory that a run can use.

        Returns:
            Bytes: what is free now, and what torch keeps for itself.
        """
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free) + torch.cuda.memory_reserved(self._device)

    def peak(self, work: Callable[[], None]) -> int:
        """Run a function and measure its memory.

        Args:
            work: The function.

        Returns:
            Bytes: the most that tensors took meanwhile, those that were there before included.
        """
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        return torch.cuda.max_memory_allocated(self._device)


def meter_of(device: torch.device) -> Meter | None:
    """Return the meter of a device.

    Args:
        device: The device.

    Returns:
        The meter; None if the memory of such a device cannot be measured.
    """
    return CudaMeter(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Fit:
    """What fits.

    Args:
        images: Largest number of images at a time.
        bytes: Memory that a step on them takes.
        free: Memory that was free.
    """

    images: int
    bytes: int
    free: int

    def __str__(self) -> str:
        return f"takes {self.bytes / 1e9:.2g} of {self.free / 1e9:.2g} GB"


class Fitting:
    """Measures how many images of a stage fit.

    Args:
        config: The configuration of the run.
        device: The device.
        meter: Measures its memory.
    """

    def __init__(self, config: RunConfig, device: torch.device, meter: Meter) -> None:
        self._config, self._device, self._meter = config, device, meter
        gc.collect()
        self._free = meter.free()

    def of(self, stage: str, most: int = MOST) -> Fit:
        """Find the largest number of images that fits.

        Two steps are measured at each of a few sizes, because the first makes the optimizers'
        tensors. A straight line through them tells the size to choose, which is then tried.

        Args:
            stage: Name of the stage.
            most: Largest number of interest, at least 1.

        Returns:
            What fits.

        Raises:
            UserError: Not even the smallest number does.
        """
        measured = self._probed(stage, most)
        chosen = min(most, _rounded(_expected(measured, SHARE * self._free)))
        while chosen > max(measured):
            taken = self._taken(stage, chosen)
            if taken is not None and taken <= SHARE * self._free:
                return Fit(chosen, taken, self._free)
            chosen = _rounded(chosen * 3 // 4)
        fitting = {n: taken for n, taken in measured.items() if taken <= SHARE * self._free}
        if not fitting:
            raise UserError(
                f"stage {stage}: {min(measured)} images need "
                f"{measured[min(measured)] / 1e9:.2g} GB, {self._free / 1e9:.2g} GB are free: "
                "choose a smaller preset or --image-size"
            )
        return Fit(max(fitting), fitting[max(fitting)], self._free)

    def _probed(self, stage: str, most: int) -> dict[int, int]:
        """Measure small batches until one does not fit."""
        measured: dict[int, int] = {}
        for count in sorted({min(count, most) for count in PROBES}):
            taken = self._taken(stage, count)
            if taken is None:
                break
            measured[count] = taken
        if not measured:
            raise UserError(
                f"stage {stage}: not even {min(PROBES[0], most)} images fit into "
                f"{self._free / 1e9:.2g} GB: choose a smaller preset or --image-size"
            )
        return measured

    def _taken(self, stage: str, count: int) -> int | None:
        """Return the memory of a step, None if it does not fit."""
        try:
            return self._measured(stage, count)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        finally:
            gc.collect()  # the networks

    def _measured(self, stage: str, count: int) -> int:
        step = Trial(self._config, stage, self._device).steps(count)

        def two() -> None:
            step()
            step()

        return self._meter.peak(two)


def _expected(measured: dict[int, int], limit: float) -> int:
    """Return the batch whose memory reaches the limit, on the line through what was measured."""
    counts, taken = list(measured), list(measured.values())
    if len(counts) < 2:
        return counts[0]
    middle, level = sum(counts) / len(counts), sum(taken) / len(taken)
    slope = sum((n - middle) * (y - level) for n, y in measured.items()) / sum(
        (n - middle) ** 2 for n in counts
    )
    return MOST if slope <= 0 else int(middle + (limit - level) / slope)


def _rounded(count: int) -> int:
    """Round down to a multiple of 8 where the number is not small, and of 2 where it is."""
    return count // 8 * 8 if count >= 16 else count // 2 * 2


def fit_batch(config: RunConfig, device: torch.device, say: Say, meter: Meter | None) -> RunConfig:
    """Choose the largest batch that fits (`--batch-size auto`).

    Learning rates are not changed. Stages that have a batch size of their own keep it.

    Args:
        config: The configuration of the run.
        device: The device.
        say: Takes a line that tells the choice and the reason.
        meter: Measures the device's memory. None: it cannot be measured, and the preset's batch
            stays.

    Returns:
        The configuration with the batch size as a number.

    Raises:
        UserError: Not even the smallest batch fits.
    """
    settings = config.settings
    if meter is None:
        say(
            f"batch size {settings.batch_size}: the preset's; only a CUDA device's memory is "
            "measured"
        )
        return config
    dataset = open_dataset(config.data)
    most = MOST if dataset.endless else max(2, min(MOST, len(dataset)))
    fitting = Fitting(config, device, meter)
    free = [stage for stage in _stages(config) if "batch_size" not in stage.own]
    fits = [fitting.of(stage.name, most) for stage in free]
    if not fits:
        say(f"batch size {settings.batch_size}: all stages have a batch size of their own")
        return config
    least = min(fits, key=lambda fit: fit.images)
    total = least.images * settings.accumulate
    why = "as many as the data set has" if least.images == most < MOST else f"it {least}"
    say(f"batch size {total} (auto): {why}; learning rates are unchanged")
    return _with(config, batch_size=total)


def fit_parts(config: RunConfig, device: torch.device, say: Say, meter: Meter | None) -> RunConfig:
    """Keep the batch and choose the number of its parts so that each fits (`--accumulate auto`).

    Args:
        config: The configuration of the run.
        device: The device.
        say: Takes a line that tells the choice and the reason.
        meter: Measures the device's memory. None: it cannot be measured, and the setting stays.

    Returns:
        The configuration with the setting `accumulate` as a number.

    Raises:
        UserError: No number of parts fits.
    """
    if meter is None:
        parts = config.settings.accumulate
        say(f"accumulate {parts}: the preset's; only a CUDA device's memory is measured")
        return config
    fitting, stages = Fitting(config, device, meter), _stages(config)
    fits = [fitting.of(stage.name, stage.settings.batch_size) for stage in stages]
    for parts in _common_divisors([stage.settings.batch_size for stage in stages]):
        rooms = zip(stages, fits, strict=True)
        if any(stage.settings.batch_size // parts > fit.images for stage, fit in rooms):
            continue
        try:
            chosen = _with(config, accumulate=parts)
        except UserError:  # a part has too few images for the model
            continue
        whole = f"batch of {config.settings.batch_size} in {parts} part{'s' * (parts > 1)} (auto)"
        say(f"{whole}: {min(fit.images for fit in fits)} images at a time fit")
        return chosen
    raise UserError(
        f"no number of parts of a batch of {config.settings.batch_size} fits: "
        "set --batch-size auto, or choose a smaller preset"
    )


@dataclass(frozen=True)
class _Stage:
    name: str
    settings: ModelConfig
    own: frozenset[str]


def _stages(config: RunConfig) -> list[_Stage]:
    encoder = registry().encoders.build(config.encoder, None)
    return [
        _Stage(stage.name, stage_settings(config, stage), frozenset(stage.settings))
        for stage in stages_of(config, encoder)
    ]


def _common_divisors(numbers: Sequence[int]) -> list[int]:
    common = math.gcd(*numbers)
    return [n for n in range(1, common + 1) if common % n == 0]


def _with(config: RunConfig, **changes: int) -> RunConfig:
    changed = replace(config, settings=config.settings.with_(**changes))
    _stages(changed)  # a stage's own batch size must fit the change, too
    return changed
