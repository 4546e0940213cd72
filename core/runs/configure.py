"""The configuration of a run, merged from a preset, a file and the command line, and checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import AUTO, ModelSpec, SamplerSpec, import_object
from t2i.core.registry.tables import Table, registry
from t2i.core.runs.automatic import Machine, automatic_preset
from t2i.core.runs.config_file import (
    NAMES,
    UNKNOWN,
    UNREADABLE,
    named_preset,
    parse_yaml,
    read_config_file,
    refuse_names,
)
from t2i.core.runs.recognising import with_data_set
from t2i.core.settings import Config, DataConfig, ModelConfig, Preset
from t2i.core.settings.data import AbsentData
from t2i.core.settings.layers import merge

if TYPE_CHECKING:
    from t2i.core.interfaces.dataset import Dataset

SECTIONS = ("data", "encoder", "sampler")
"""Keys of a configuration that choose a plugin: `name`, beside that plugin's settings."""

NONE = "none"
"""Name of the sampler in runs of models that sample no images (guides)."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on.

    Args:
        model: Name of the model.
        preset: Name of the preset that the settings started from; UNKNOWN if a parsed document has
            none.
        settings: The model's settings.
        data: The data set and its settings.
        encoder: The text encoder and its settings.
        sampler: The sampler and its settings; NONE for models that sample no images.
    """

    model: str
    preset: str
    settings: ModelConfig
    data: Choice[DataConfig]
    encoder: Choice[Config]
    sampler: Choice[SamplerConfig]

    def dump(self) -> dict[str, Any]:
        """Convert the configuration to a JSON document.

        Returns:
            A document that `parse` and `--config` accept.
        """
        sections = {name: getattr(self, name).dump() for name in SECTIONS}
        return {
            "model": self.model,
            "preset": self.preset,
            **self.settings.model_dump(mode="json"),
            **sections,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> RunConfig:
        """Read a document that `dump` made, and check it.

        A data set that is not installed is accepted with its settings unchecked.

        Args:
            document: The document.
            where: Name of the document in errors.

        Returns:
            The configuration.

        Raises:
            UserError: The document has no model, an unknown name, or a wrong setting.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("model"), str):
            raise UserError(f"{where}: no run configuration (it has no 'model')")
        return _assemble(
            document["model"], str(document.get("preset", UNKNOWN)), [(where, document)], False
        )


def resolve_config(
    model: str,
    *,
    preset: str | None = None,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    data_needed: bool = True,
    device: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    start: RunConfig | None = None,
) -> RunConfig:
    """Merge and check the configuration of a run.

    The layers are the preset, the file, `overrides`, `sets` and `more`. Each wins over the ones
    before it. A folder of data without the name of a data set decides which one it is, unless the
    preset's own reads a folder; a line says so.

    Args:
        model: Name of the model.
        preset: Name of one of its presets, or "auto" for settings by image size and machine. None:
            the one that the file names, else FIRST.
        config_file: YAML file of settings; None for no file. It may name the model and the preset,
            as a document of `RunConfig.dump` does, but no others than the arguments.
        overrides: Settings from the command line's own options; None for none.
        sets: Settings of the form "a.b=value". Later ones win.
        more: Settings by name, sections as mappings. They win over all others. None for none.
        data_needed: Whether the data set must be installed. Weights that were trained elsewhere can
            be sampled from without it.
        device: Device that preset "auto" is chosen for. None: the best one.
        say: Takes the lines that tell what preset "auto" chose and why.
        start: Configuration that takes the preset's place: that of the model whose weights training
            starts from. None: the preset.

    Returns:
        The configuration, complete and checked.

    Raises:
        UserError: A name is unknown, a value is wrong, a setting names the model or the preset, or
            the file cannot be read or is for another model or preset. The message is one line.
    """
    file = {} if config_file is None else read_config_file(config_file, model)
    preset = named_preset(preset, file, config_file, start.preset if start else None)
    if start is not None:
        first = (f"run of {start.model}", _weightless(start))
    else:
        first = (f"--preset {preset}", {} if preset == AUTO else as_layer(_preset(model, preset)))
    given: list[tuple[str, Mapping[str, Any]]] = [("command line", overrides or {})]
    given += [(f"--set {text}", parse_set(text)) for text in sets]
    given += [("settings", more)] if more else []
    refuse_names(given)
    if start is not None and not is_there(start.data):
        if any(layer.get("data") for layer in (file, *(layer for _, layer in given))):
            first = (first[0], {key: value for key, value in first[1].items() if key != "data"})
        else:
            data_needed = False
    layers = with_data_set([first, (str(config_file), file), *given])
    if preset == AUTO and start is None:
        where, known = layers[0]
        chosen = as_layer(_automatic(model, layers, device, say))
        layers[0] = (where, merge(chosen, known, SECTIONS))
    return _assemble(model, preset, layers, data_needed)


def _automatic(
    model: str,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    device: str | None,
    say: Callable[[str], None],
) -> Preset:
    """Choose preset `auto` for the data set and the image size in the layers above it."""
    spec = registry().models[model]
    given = _merged(spec, layers)
    data = _data({"name": _name_of("data", spec, given), **(given.get("data") or {})}, True)
    machine = Machine.of(device)
    return automatic_preset(model, given, data, lambda: open_dataset(data), machine, say)


def _weightless(start: RunConfig) -> dict[str, Any]:
    """Return the settings of a run as a layer, without the size at which it loaded its images."""
    layer = {key: value for key, value in start.dump().items() if key not in NAMES}
    data = {key: value for key, value in layer["data"].items() if key != "image_size"}
    return {**layer, "data": data}


def is_there(data: Choice[DataConfig]) -> bool:
    """Tell whether a data set is installed. Another project's model names none.

    Args:
        data: The data set.

    Returns:
        Whether it is.
    """
    return data.name in registry().datasets


def _preset(model: str, preset: str) -> Preset:
    presets: Mapping[str, Preset] = import_object(registry().models[model].config).presets()
    if preset not in presets:
        raise UserError(
            f"model '{model}' has no preset '{preset}'{nearest(preset, [*presets, AUTO])}"
        )
    return presets[preset]


def as_layer(chosen: Preset) -> dict[str, Any]:
    """Return the settings of a preset as a document.

    Args:
        chosen: The preset.

    Returns:
        Its settings by name, with data, encoder and sampler as sections where it names them.
    """
    named = {name: getattr(chosen, name) for name in SECTIONS if getattr(chosen, name)}
    return {
        **chosen.settings,
        **{section: {"name": name, **own} for section, (name, own) in named.items()},
    }


def parse_set(text: str) -> dict[str, Any]:
    """Parse a setting of the form "a.b=value".

    Args:
        text: The setting. Its value is read as YAML: a number, true, false, a list, or else text.

    Returns:
        Nested mappings: {"a": {"b": value}}.

    Raises:
        UserError: There is no "=", or a part of the key is empty.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UserError(f"--set {text}: expected KEY=VALUE, such as --set steps=1000")
    try:
        document: Any = parse_yaml(value)
    except UNREADABLE:  # "2024-02-30" is no date, but a name
        document = value
    if isinstance(document, date):
        document = value
    if isinstance(document, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            document = float(document)
    return nested({key.strip(): document})


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nest settings whose names have dots.

    Args:
        settings: By name, such as {"encoder.width": 64}.

    Returns:
        The same as mappings of mappings, such as {"encoder": {"width": 64}}.
    """
    merged: dict[str, Any] = {}
    for name, value in settings.items():
        document = value
        for part in reversed(name.split(".")):
            document = {part: document}
        merged = merge(merged, document, SECTIONS)
    return merged


def parse_sets(texts: Sequence[str]) -> dict[str, Any]:
    """Parse several settings of the form "a.b=value".

    Args:
        texts: The settings. Later ones win.

    Returns:
        All of them in one nested mapping.

    Raises:
        UserError: One of them has no "=", or an empty part of a key.
    """
    merged: dict[str, Any] = {}
    for text in texts:
        merged = merge(merged, parse_set(text), SECTIONS)
    return merged


def _assemble(
    model: str, preset: str, layers: Sequence[tuple[str, Mapping[str, Any]]], data_needed: bool
) -> RunConfig:  # fmt: skip
    """Merge layers of settings, each with its name for errors, and check the result."""
    spec = registry().models[model]
    merged = _merged(spec, layers)
    where = layers[-1][0] if len(layers) == 1 else f"model '{model}'"
    own = {key: value for key, value in merged.items() if key not in (*SECTIONS, *NAMES)}
    config: type[ModelConfig] = import_object(spec.config)
    settings = _settings(config, own, where, preset, _preset_size(config, preset, layers[0]))
    data, encoder, sampler = (
        {"name": _name_of(s, spec, merged), **(merged.get(s) or {})} for s in SECTIONS
    )
    data.setdefault("image_size", loaded_size(settings))
    return RunConfig(
        model,
        preset,
        settings,
        _data(data, data_needed),
        _choice(registry().encoders, encoder, "text encoder"),
        _sampler(sampler),
    )


def _settings(
    config: type[ModelConfig], own: Mapping[str, Any], where: str, preset: str, fits: int | None
) -> ModelConfig:
    """Check a model's settings. If only the image size does not fit, the error names `auto`.

    Args:
        config: The class of the settings.
        own: The settings.
        where: Name of the settings in error messages.
        preset: Name of the preset.
        fits: The image size of the preset. None: the settings do not start from a preset.
    """
    try:
        return config.of(own, where)
    except UserError as error:
        if fits is None or not _is_valid(config, {**own, "image_size": fits}):
            raise
        raise UserError(
            f"{error}; preset '{preset}' is for images of {fits} px: try --preset {AUTO}"
        ) from None


def _is_valid(config: type[ModelConfig], settings: Mapping[str, Any]) -> bool:
    """Tell whether a model's settings pass its checks."""
    try:
        config.of(settings, "")
    except UserError:
        return False
    return True


def _preset_size(
    config: type[ModelConfig], preset: str, first: tuple[str, Mapping[str, Any]]
) -> int | None:
    """Return the image size of the lowest layer of settings, if that is a preset."""
    where, layer = first
    if where != f"--preset {preset}":
        return None
    size: int = layer.get("image_size", config.model_fields["image_size"].default)
    return size


def _merged(spec: ModelSpec, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge layers of settings, each with its name for errors."""
    merged: dict[str, Any] = {}
    for where, layer in layers:
        for section in SECTIONS:
            if section in layer and not isinstance(layer[section], Mapping):
                raise UserError(
                    f"{where}: '{section}' is a section: set '{section}.name' or one of its "
                    f"settings"
                )
        try:
            merged = merge(merged, _current(spec, merged, layer), SECTIONS)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    return merged


def _name_of(section: str, spec: ModelSpec, *layers: Mapping[str, Any]) -> str:
    """Return the name of the plugin that a section configures.

    It is the `name` in the last layer that has one, else the default.
    """
    for layer in reversed(layers):
        if named := (layer.get(section) or {}).get("name"):
            return str(named)
    if section == "sampler":
        return default_sampler(spec.family)
    return str(_table(section).default().name)


def _table(section: str) -> Table[Any]:
    tables: dict[str, Table[Any]] = {
        "data": registry().datasets, "encoder": registry().encoders, "sampler": registry().samplers
    }  # fmt: skip
    return tables[section]


def _current(
    spec: ModelSpec, merged: Mapping[str, Any], layer: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a layer with former names of settings replaced by the current ones.

    Only then does it win over the layers below it. A setting given under both names raises
    ValueError.
    """
    kind: type[Config] = import_object(spec.config)
    present = kind.current({key: value for key, value in layer.items() if key not in SECTIONS})
    for section in (section for section in SECTIONS if section in layer):
        own, name = layer[section], _name_of(section, spec, merged, layer)
        if name in _table(section):
            kind = import_object(_table(section)[name].config)
            own = kind.current(own)
        present[section] = own
    return present


def default_sampler(family: str) -> str:
    """Return the sampler that a family of models uses unless another is chosen.

    Args:
        family: Name of the family.

    Returns:
        The name of the sampler marked as default, else of the first one that fits; NONE if models
        of the family sample no images.

    Raises:
        UserError: No sampler that fits is installed.
    """
    if not registry().draws(family):
        return NONE
    fitting = fitting_samplers(family)
    marked = [spec.name for spec in fitting if spec.default]
    if not fitting:
        raise UserError(f"no sampler for {family} models is installed")
    return marked[0] if marked else fitting[0].name


def fitting_samplers(family: str) -> list[SamplerSpec]:
    """Return the samplers that support a family of models.

    Args:
        family: Name of the family.

    Returns:
        Their specs, in the registry's order. A sampler for "*" supports every family.
    """
    return [spec for spec in registry().samplers if family in spec.families or "*" in spec.families]


def loaded_size(settings: ModelConfig) -> int:
    """Return the size at which the data set loads images.

    Args:
        settings: The model's settings.

    Returns:
        Height and width in pixels: the model's image size, times `augment.scale` for a random crop.
    """
    return round(settings.image_size * settings.augment.scale)


def _data(section: Mapping[str, Any], needed: bool) -> Choice[DataConfig]:
    """Return the chosen data set. It may be one that is not installed, unless it is needed now."""
    name = str(section.get("name"))
    if needed or name in registry().datasets:
        return _choice(registry().datasets, section, "data set")
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(name, AbsentData.of(settings, f"data set '{name}'"))


def _sampler(section: Mapping[str, Any]) -> Choice[SamplerConfig]:
    """Return the chosen sampler. NONE has only the settings that all samplers share."""
    if section["name"] != NONE:
        return _choice(registry().samplers, section, "sampler")
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(NONE, SamplerConfig.of(settings, f"sampler '{NONE}'"))


def _choice(table: Table[Any], section: Mapping[str, Any], kind: str) -> Choice[Any]:
    settings = {key: value for key, value in section.items() if key != "name"}
    return table.choose(str(section.get("name")), settings, kind)


def open_dataset(choice: Choice[Any], split: str = "train") -> Dataset:
    """Open a split of a data set.

    Args:
        choice: The data set and its settings.
        split: Name of the split.

    Returns:
        The split, with `max_broken` and `few_broken` as its settings say.
    """
    dataset: Dataset = registry().datasets.build(choice, split)
    dataset.max_broken, dataset.few_broken = choice.config.max_broken, choice.config.few_broken
    return dataset
