"""One measurement, made in a process of its own: it prints a JSON object and ends."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from t2i.benchmarks.gpu.plan import SAMPLING, WAYS, Measurement
from t2i.core.devices import best_device
from t2i.core.engine.trial import Trial
from t2i.core.errors import T2IError, out_of_memory
from t2i.core.models.building import build
from t2i.core.runs.configure import RunConfig, resolve_config

WARM_UP = 2
"""Steps, or images, before the clock runs."""

LEAST = 2
"""Smallest number of steps, or images, that are timed."""

WEIGHTS = "weights"
"""Last word of the settings that name pretrained weights."""


STAND_IN = (
    "encoder.name=words", "encoder.width=768", "encoder.layers=1", "encoder.vocabulary_size=100",
)  # fmt: skip
"""Settings of the text encoder that stands in for a pretrained one.

Models that train a text encoder with random weights train it: 7 million parameters.
"""


def random_weights(config: RunConfig, sets: Sequence[str]) -> RunConfig:
    """Return a configuration whose networks are all built with random weights.

    A small text encoder stands in for a pretrained one.

    Args:
        config: A configuration, some of whose settings name pretrained weights.
        sets: The settings that it was resolved with, as in `t2i train --set`.

    Returns:
        The configuration. Settings that must name weights still do.
    """
    sets = [*sets]
    if any(_named_weights(config.encoder.config.model_dump())):
        sets += STAND_IN
        config = resolve_config(config.model, preset=config.preset, data_needed=False, sets=sets)
    for name in _named_weights(config.settings.model_dump()):
        try:
            config = resolve_config(
                config.model, preset=config.preset, data_needed=False, sets=[*sets, f"{name}=null"]
            )
        except T2IError:
            continue
        sets.append(f"{name}=null")
    return config


def _named_weights(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named_weights(value, f"{above}{name}.")
        elif name.endswith(WEIGHTS) and isinstance(value, str):
            yield above + name


def measure(measurement: Measurement, seconds: float) -> dict[str, Any]:
    """Make a measurement.

    Args:
        measurement: What is measured.
        seconds: Time to repeat steps or images for, after two to warm up.

    Returns:
        The result: `images_per_second` and `gb` of training, `seconds_per_image` and `gb` of
        sampling; or `error`, in one line.
    """
    try:
        result = _measured(measurement, seconds)
    except Exception as error:  # each failure is a row of the table
        if out_of_memory(error):
            return {"error": "out of memory"}
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    return result | {"gb": round(_peak() / 1e9, 3), "device": _device_name()}


def _measured(measurement: Measurement, seconds: float) -> dict[str, Any]:
    way = WAYS.get(measurement.way, WAYS["float32"])
    sets = [f"{name}={json.dumps(value)}" for name, value in way.items()]
    sets += ["threads=0"]
    config = resolve_config(
        measurement.model, preset=measurement.preset, sets=sets, data_needed=False
    )
    config = random_weights(config, sets)
    if measurement.way == SAMPLING:
        return {"seconds_per_image": _sampling(config, seconds)}
    trial = Trial(config, None, best_device())
    images = trial.settings.batch_size // trial.settings.accumulate
    step = trial.steps(images)
    return {
        "batch": images,
        "images_per_second": images / _repeated(step, seconds),
        "parameters": sum(
            p.numel() for o in trial.prepared.optimizations.values() for p in o.parameters
        ),
    }


def _sampling(config: RunConfig, seconds: float) -> float:
    """Return the seconds an image when images are sampled one at a time, as in the thesis."""
    model = build(config).to(best_device())
    return _repeated(lambda: list(model.stream(["an image of something"])), seconds)


def _repeated(work: Any, seconds: float) -> float:
    """Return the mean seconds of a call, after some to warm up."""
    for _ in range(WARM_UP):
        work()
    started, done = time.perf_counter(), 0
    while done < LEAST or time.perf_counter() - started < seconds:
        work()
        done += 1
    return (time.perf_counter() - started) / done


def _peak() -> int:
    """Return the most memory that was in use: of the GPU, or else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def main(arguments: Sequence[str]) -> None:
    """Make the measurement that the arguments name, and print its result.

    Args:
        arguments: Model, preset, way and seconds.
    """
    model, preset, way, seconds = arguments
    print(json.dumps(measure(Measurement(model, preset, way), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
