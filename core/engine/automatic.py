"""Settings that are left to the program: preset, batch size, parts and precision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from t2i.core.devices import named_device
from t2i.core.engine.fitting import Meter, fit_batch, fit_parts, meter_of
from t2i.core.engine.low_memory import save_memory
from t2i.core.engine.precision import fit_precision
from t2i.core.errors import UserError
from t2i.core.io import launched
from t2i.core.models.origin import Origin, find_origin
from t2i.core.registry.specs import AUTO
from t2i.core.registry.tables import registry
from t2i.core.runs.config_file import read_config_file
from t2i.core.runs.configure import RunConfig, parse_set, resolve_config

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
        start: Weights that training starts from: what `find_origin` takes or returns. The settings
            are those of their model too, unless another model or a preset is named. None: fresh
            weights.
        low_memory: Whether settings that the user leaves open are chosen for a small card.
    """

    model: str | None
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    device: str | None = None
    start: Origin | str | Path | None = None
    low_memory: bool = False


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
    named_device(wanted.device)  # a wrong name is told before anything is read
    origin = wanted.start
    if origin is not None and not isinstance(origin, Origin):
        origin = find_origin(origin, wanted.model)
    theirs = origin.config if origin else None
    model = wanted.model or (theirs.model if theirs else None)
    assert model is not None
    goes_on = theirs is not None and theirs.model == model and wanted.preset is None
    start = theirs if goes_on else None
    left = frozenset(name for name in LEFT if wanted.options.get(name) == AUTO)
    given = {name: value for name, value in wanted.options.items() if name not in left}
    config = resolve_config(
        model, preset=wanted.preset, config_file=wanted.config_file,
        overrides=given, sets=wanted.sets, more=wanted.more, device=wanted.device, say=say,
        start=start,
    )  # fmt: skip
    if theirs is not None and start is None and not _names_encoder(wanted):
        config = _with_vocabulary(config, theirs)
    tuned = start if origin is not None and origin.foreign else None
    if origin is not None and tuned is not None:
        say(f"settings of {origin.name}: {_told(tuned)}")
    if wanted.low_memory:
        device = named_device(wanted.device)
        config = save_memory(config, _given(wanted), device, say, split=tuned is not None)
    return settle(config, left, wanted.device, say, meter)


def _names_encoder(wanted: Training) -> bool:
    """Tell whether a user chooses the text encoder or a setting of it."""
    return "encoder" in _given(wanted)


def _given(wanted: Training) -> set[str]:
    """Name the settings and sections that the user has set, or left to the program."""
    file = read_config_file(wanted.config_file, None) if wanted.config_file else {}
    layers = [file, wanted.options, wanted.more, *map(parse_set, wanted.sets)]
    return {name for layer in layers for name, value in layer.items() if value not in (None, {})}


def _with_vocabulary(config: RunConfig, theirs: RunConfig) -> RunConfig:
    """Take the text encoder of other weights if it is one of the same kind with a vocabulary.

    Its word vectors would else be those of other words.
    """
    same = config.encoder.name == theirs.encoder.name
    fits = same and registry().encoders[config.encoder.name].fit is not None
    return replace(config, encoder=theirs.encoder) if fits else config


def _told(config: RunConfig) -> str:
    """List the plain settings that another project's files give, with encoder and sampler."""
    named = config.settings.model_dump(exclude_unset=True)
    plain = {name: value for name, value in named.items() if isinstance(value, (int, float, str))}
    chosen = {"model": config.model, **plain, "encoder": config.encoder.name}
    return " ".join(f"{name}={value}" for name, value in chosen.items())


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
