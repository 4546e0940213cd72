"""The resolved configuration of a run: preset, then file, then command line, each checked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import ModelSpec, SamplerSpec, import_object
from t2i.core.registry.tables import Table, registry
from t2i.core.settings import AbsentData, Config, DataConfig, ModelConfig, merge

if TYPE_CHECKING:
    from t2i.core.interfaces.dataset import Dataset

SECTIONS = ("data", "encoder", "sampler")

NONE = "none"
"""The sampler's name in runs of models that draw no images (guides)."""


@dataclass(frozen=True)
class RunConfig:
    """All that a run depends on: model and preset, the model's settings, and the data, encoder and
    sampler chosen."""

    model: str
    preset: str
    settings: ModelConfig
    data: Choice[DataConfig]
    encoder: Choice[Config]
    sampler: Choice[SamplerConfig]

    def dump(self) -> dict[str, Any]:
        """As JSON. The same document is legal for `--config`."""
        sections = {name: getattr(self, name).dump() for name in SECTIONS}
        return {
            "model": self.model,
            "preset": self.preset,
            **self.settings.model_dump(mode="json"),
            **sections,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> RunConfig:
        """The inverse of `dump`, checked, but for a data set that is not installed: `where` names
        the document in errors."""
        if not isinstance(document, Mapping) or not isinstance(document.get("model"), str):
            raise UserError(f"{where}: no run configuration (it has no 'model')")
        return _assemble(
            document["model"], str(document.get("preset", "?")), [(where, document)], False
        )


def resolve_config(
    model: str,
    *,
    preset: str = "tiny",
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    data_needed: bool = True,
) -> RunConfig:
    """The configuration of a run: preset, then the file, then `overrides`, then `sets`
    ("a.b=value"), each winning over the ones before it. Raises UserError, one line, for any unknown
    name or wrong value.

    data_needed: whether the data set must be installed; weights that were trained elsewhere are
        drawn from without it.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [(f"--preset {preset}", _preset(model, preset))]
    if config_file is not None:
        layers.append((str(config_file), _read_yaml(config_file, model)))
    layers.append(("command line", overrides or {}))
    layers += [(f"--set {text}", parse_set(text)) for text in sets]
    layers += [("settings", more)] if more else []
    return _assemble(model, preset, layers, data_needed)


def _preset(model: str, preset: str) -> dict[str, Any]:
    presets = import_object(registry().models[model].config).presets()
    if preset not in presets:
        raise UserError(f"model '{model}' has no preset '{preset}'{nearest(preset, presets)}")
    chosen = presets[preset]
    named = {name: getattr(chosen, name) for name in SECTIONS if getattr(chosen, name)}
    return {
        **chosen.settings,
        **{section: {"name": name, **own} for section, (name, own) in named.items()},
    }


def _read_yaml(path: Path, model: str) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"--config {path}: not YAML: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(document, Mapping):
        raise UserError(
            f"--config {path}: a mapping of settings is expected, such as 'steps: 1000'"
        )
    if document.get("model", model) != model:
        raise UserError(f"--config {path}: it is for model '{document['model']}', not '{model}'")
    return document


def parse_set(text: str) -> dict[str, Any]:
    """ "a.b=value" as {"a": {"b": value}}; the value is read as YAML (numbers, true/false,
    lists)."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {text}: expected KEY=VALUE, such as --set steps=1000")
    try:
        document: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        document = value
    if isinstance(document, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            document = float(document)
    for part in reversed(parts):
        document = {part: document}
    return dict(document)


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
    """Several "a.b=value" as one mapping; later ones win."""
    merged: dict[str, Any] = {}
    for text in texts:
        merged = merge(merged, parse_set(text), SECTIONS)
    return merged


def _assemble(
    model: str, preset: str, layers: Sequence[tuple[str, Mapping[str, Any]]], data_needed: bool
) -> RunConfig:  # fmt: skip
    spec = registry().models[model]
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
    where = layers[-1][0] if len(layers) == 1 else f"model '{model}'"
    own = {key: value for key, value in merged.items() if key not in (*SECTIONS, "model", "preset")}
    settings: ModelConfig = import_object(spec.config).of(own, where)
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


def _name_of(section: str, spec: ModelSpec, *layers: Mapping[str, Any]) -> str:
    """What a section is of: the name that the last layer with one says, else the default."""
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
    """A layer with settings that were renamed under their names of today, so that it wins over
    those below it.

    Raises ValueError: a setting has both of its names.
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
    """Name of the sampler that models of a family are drawn with where nothing names one: the
    family's default, else the first that draws from it; NONE where the family draws no images.
    UserError if there is none."""
    if not registry().draws(family):
        return NONE
    fitting = fitting_samplers(family)
    marked = [spec.name for spec in fitting if spec.default]
    if not fitting:
        raise UserError(f"no sampler that draws from {family} models is installed")
    return marked[0] if marked else fitting[0].name


def fitting_samplers(family: str) -> list[SamplerSpec]:
    """The samplers that draw from a family, by name."""
    return [spec for spec in registry().samplers if family in spec.families or "*" in spec.families]


def loaded_size(settings: ModelConfig) -> int:
    """Size at which the data set loads images: larger than the model's where a random crop
    follows."""
    return round(settings.image_size * settings.augment.scale)


def _data(section: Mapping[str, Any], needed: bool) -> Choice[DataConfig]:
    """The data set chosen; unless it is needed now, it may be one that is not installed."""
    name = str(section.get("name"))
    if needed or name in registry().datasets:
        return _choice(registry().datasets, section, "data set")
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(name, AbsentData.of(settings, f"data set '{name}'"))


def _sampler(section: Mapping[str, Any]) -> Choice[SamplerConfig]:
    """The sampler chosen; NONE has every sampler's settings, and none of its own."""
    if section["name"] != NONE:
        return _choice(registry().samplers, section, "sampler")
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(NONE, SamplerConfig.of(settings, f"sampler '{NONE}'"))


def _choice(table: Table[Any], section: Mapping[str, Any], kind: str) -> Choice[Any]:
    settings = {key: value for key, value in section.items() if key != "name"}
    return table.choose(str(section.get("name")), settings, kind)


def open_dataset(choice: Choice[Any], split: str = "train") -> Dataset:
    """A split of a data set."""
    dataset: Dataset = registry().datasets.build(choice, split)
    dataset.max_broken = choice.config.max_broken
    return dataset
