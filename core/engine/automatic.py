"""Settings that are left to the program: preset, batch size, parts and precision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.core.devices import named_device
from t2i.core.engine.fitting import Meter, fit_batch, fit_parts, meter_of
from t2i.core.engine.precision import fit_precision
from t2i.core.engine.warm_start import start_config
from t2i.core.errors import UserError
from t2i.core.io import launched
from t2i.core.registry.specs import AUTO
from t2i.core.runs.configure import RunConfig, resolve_config

LEFT = ("batch_size", "accumulate", "precision")
"""Settings that may be "auto"."""


@dataclass(frozen=True)
class Training:
    """What a user asks for when a training begins, on the command line or in Python.

    Args:
        model: Registry name of the model. None: that of `start`.
        preset: Name of the preset, or "auto". None: that of `config_file`, else "tiny".
        options: Settings from options (`option_layer`). Those in LEFT may be "auto".
        sets: Settings of the form "a.b=value".
        more: Further settings by name, sections as mappings.
        config_file: YAML file of settings. None: none.
        device: Name of the device. None: the best one.
        start: Run whose weights and settings training starts from. None: fresh weights.
    """

    model: str | None
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    device: str | None = None
    start: Path | None = None


def resolve(wanted: Training, say: Callable[[str], None], meter: Meter | None = None) -> RunConfig:
    """Make the configuration of a new run, with plain values for everything that is "auto".

    Args:
        wanted: What the user asks for.
        say: Takes the lines that tell what was chosen and why.
        meter: Measures the device's memory. None: the meter of the device, if it has one.

    Returns:
        The configuration.

    Raises:
        UserError: A name is unknown, a value is wrong, or nothing fits the memory.
    """
    if wanted.start is not None and wanted.preset is not None:
        raise UserError("--from goes on with that run's settings: leave out --preset")
    named_device(wanted.device)  # a wrong name is told before anything is read
    start = start_config(wanted.start, wanted.model) if wanted.start else None
    model = start.model if start else wanted.model
    assert model is not None
    left = frozenset(name for name in LEFT if wanted.options.get(name) == AUTO)
    given = {name: value for name, value in wanted.options.items() if name not in left}
    config = resolve_config(
        model, preset=wanted.preset, config_file=wanted.config_file,
        overrides=given, sets=wanted.sets, more=wanted.more, device=wanted.device, say=say,
        start=start,
    )  # fmt: skip
    return settle(config, left, wanted.device, say, meter)


def settle(
    config: RunConfig,
    left: Collection[str],
    device: str | None,
    say: Callable[[str], None],
    meter: Meter | None = None,
) -> RunConfig:
    """Choose the settings that are left to the program, and report each choice.

    Preset "auto" leaves the number of parts of a batch to the program, too.

    Args:
        config: The configuration with the preset's values in their places.
        left: Names of the settings that are left to the program, among LEFT.
        device: Name of the device. None: the best one.
        say: Takes the lines.
        meter: Measures the device's memory. None: the meter of the device, if it has one.

    Returns:
        The configuration with plain values.

    Raises:
        UserError: This machine has no such device, nothing fits, or several processes train.
    """
    place = named_device(device)
    names = set(left)
    if "precision" in names:
        sized = "batch_size" not in names
        config = fit_precision(config, place, say, sized)
    meter = meter or meter_of(place)
    fixed = config.settings.accumulate > 1 or names & {"batch_size", "accumulate"}
    if config.preset == AUTO and meter and not fixed:
        names.add("accumulate")
    fits = {"batch_size": fit_batch, "accumulate": fit_parts}
    chosen_fits = [fit for name, fit in fits.items() if name in names]
    if chosen_fits and launched.several():
        raise UserError(
            "several processes train together: measure with one (--dry-run), and name the number"
        )
    for fit in chosen_fits:
        config = fit(config, place, say, meter)
    return config
