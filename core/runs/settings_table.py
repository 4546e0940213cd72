"""Tables of settings: what each setting does, and its value in each preset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
from pydantic_core import PydanticUndefined

from t2i.core.errors import UserError, nearest
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import SECTIONS, RunConfig, resolve_config
from t2i.core.settings import Config

KINDS = ("models", "samplers", "encoders", "datasets", "features", "metrics", "benchmarks")
"""Kinds of plugins with settings, in the order in which a name is looked up."""

DEFAULT = "default"
"""Name of the only column where there are no presets."""

MISSING = "-"
"""The value of a setting that a preset does not have, for example its encoder."""


@dataclass(frozen=True)
class SettingRow:
    """One setting.

    Args:
        name: The name that `--set` accepts, such as "encoder.width".
        about: The docstring under the field, on one line.
        values: Its JSON value by preset.
    """

    name: str
    about: str
    values: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The first sentence of `about`."""
        return re.split(r"(?<=[.?!])(?<!et al\.)(?<!e\.g\.) ", self.about, maxsplit=1)[0]


def kinds_of(name: str) -> list[str]:
    """Find the kinds of plugins that have a name.

    Args:
        name: A registry name.

    Returns:
        The kinds, models first.

    Raises:
        UserError: Nothing has that name.
    """
    found = [kind for kind in KINDS if name in registry().table(kind)]
    if not found:
        known = {spec.name for kind in KINDS for spec in registry().table(kind)}
        raise UserError(f"nothing with settings is named '{name}'{nearest(name, known)}")
    return found


def settings_of(kind: str, name: str, presets: Sequence[str] = ()) -> list[SettingRow]:
    """List the settings of a model, a sampler, a data set or another registered plugin.

    Args:
        kind: One of KINDS.
        name: Its registry name.
        presets: Presets of a model to show. Empty: all.

    Returns:
        The settings in the order of their classes. For a model, those of the encoder, sampler and
        data set of each preset follow.

    Raises:
        UserError: A preset is unknown.
    """
    spec = registry().table(kind)[name]
    if kind != "models":
        settings: type[Config] = import_object(spec.config)
        return [
            SettingRow(path, about, {DEFAULT: default})
            for path, about, default in _fields(settings, "")
        ]
    configs = {
        preset: resolve_config(name, preset=preset, data_needed=False)
        for preset in presets or spec.presets
    }
    return _model_rows(configs)


def _model_rows(configs: Mapping[str, RunConfig]) -> list[SettingRow]:
    """Make the rows of a model from its configuration in each preset; the sections come last."""
    about: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {}
    for preset, config in configs.items():
        parts = [("", config.settings)]
        parts += [(f"{section}.", getattr(config, section).config) for section in SECTIONS]
        for section in SECTIONS:
            path = f"{section}.name"
            about.setdefault(path, f"Registry name of the {_SECTION_WORDS[section]}.")
            values.setdefault(path, {})[preset] = getattr(config, section).name
        for prefix, settings in parts:
            dumped = settings.model_dump(mode="json")
            for path, words, _ in _fields(type(settings), prefix):
                about.setdefault(path, words)
                values.setdefault(path, {})[preset] = _at(dumped, path.removeprefix(prefix))
        for path in about:  # a section that may be None: either it has a value, or its settings do
            section = path.rpartition(".")[0]
            if isinstance(values.get(section, {}).get(preset), Mapping):
                values[section][preset] = MISSING
    order = sorted(about, key=lambda path: path.split(".")[0] in SECTIONS)
    return [
        SettingRow(path, about[path], {p: values[path].get(p, MISSING) for p in configs})
        for path in order
    ]


_SECTION_WORDS = {"data": "data set", "encoder": "text encoder", "sampler": "sampler"}


def _fields(settings: type[pydantic.BaseModel], prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (path, description, default) of each setting, including nested ones."""
    for name, field in settings.model_fields.items():
        inner, optional = _section(field.annotation)
        if inner is None or optional:
            default = field.get_default(call_default_factory=False)
            known = None if default is PydanticUndefined else default
            yield f"{prefix}{name}", " ".join((field.description or "").split()), known
        if inner is not None:
            yield from _fields(inner, f"{prefix}{name}.")


def _section(annotation: Any) -> tuple[type[Config] | None, bool]:
    """Return the class of nested settings, None if these are none, and whether they may be None."""
    several = get_origin(annotation) in (Union, UnionType)
    choices = get_args(annotation) if several else (annotation,)
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, Config):
            return choice, NoneType in choices
    return None, False


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        if value is None:
            return MISSING
        value = value[part]
    return value
