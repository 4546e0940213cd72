"""What is measured: the presets of the registry, and the ways to train them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from t2i.core.registry.tables import registry

SMALL = ("tiny", "shapes", "auto")
"""Presets that are no paper's."""

THESIS = "thesis"
"""Preset with the sizes of the thesis, whose sampling times are known."""

THESIS_SECONDS: Mapping[str, float] = {"ldm": 5.0, "galip": 1.0}
"""Seconds an image in the thesis, by model."""

WAYS: Mapping[str, Mapping[str, Any]] = {
    "bf16": {"precision": "bf16", "compile": False, "channels_last": False},
    "float32": {"precision": "no", "compile": False, "channels_last": False},
    "channels-last": {"precision": "bf16", "compile": False, "channels_last": True},
    "compile": {"precision": "bf16", "compile": True, "channels_last": False},
}
"""Settings of each way to train, by its name. The most useful come first."""

SAMPLING = "sampling"
"""Name of the measurement of seconds an image."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, in a process of its own.

    Args:
        model: Name of the model.
        preset: Name of its preset.
        way: How it is trained (`WAYS`), or `SAMPLING`.
    """

    model: str
    preset: str
    way: str

    def key(self) -> dict[str, str]:
        """Return what identifies the measurement in the file of results.

        Returns:
            The fields by name.
        """
        return asdict(self)


def planned(presets: Collection[str], models: Collection[str]) -> Iterator[Measurement]:
    """List the measurements, the most useful first.

    Sampling at the thesis' sizes comes first. Then each way to train follows for all presets.

    Args:
        presets: Names of presets. Empty: all but `SMALL`.
        models: Names of models. Empty: all.

    Yields:
        The measurements.
    """
    pairs = [
        (spec.name, preset)
        for spec in registry().models
        if not models or spec.name in models
        for preset in spec.presets
        if (preset in presets if presets else preset not in SMALL)
    ]
    for model, preset in pairs:
        if preset == THESIS or (presets and model in THESIS_SECONDS):
            yield Measurement(model, preset, SAMPLING)
    for way in WAYS:
        for model, preset in pairs:
            yield Measurement(model, preset, way)
