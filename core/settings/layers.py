"""Layers of settings: nested mappings of which later ones win."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], sections: Collection[str] = ()
) -> dict[str, Any]:
    """Merge two nested mappings of settings.

    A section of `over` with another "name" replaces that of `base` instead of being merged with it,
    because the settings of one sampler do not fit another.

    Args:
        base: Settings.
        over: Settings that win over those of `base`.
        sections: Keys of mappings that stand for a registered thing even without a "name", namely
            for the default one.

    Returns:
        The merged settings. Neither argument is changed.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and not _other(old, value, key in sections)
        ):
            merged[key] = merge(old, value, sections)
        else:
            merged[key] = value
    return merged


def option_layer(
    options: Mapping[str, Any],
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    encoder: str | None = None,
) -> dict[str, Any]:
    """Make a layer of settings from a command's options.

    Args:
        options: Settings of the engine by name; None where an option is not given.
        data: Name of the data set. None: not given.
        data_dir: Folder of the data set. None: not given.
        encoder: Name of the text encoder. None: not given.

    Returns:
        The layer. A budget in steps ends a budget in minutes that a preset or a file may have set.

    Raises:
        UserError: Both budgets are given.
    """
    layer = {name: value for name, value in options.items() if value is not None}
    if "steps" in layer and "minutes" in layer:
        raise UserError("--steps and --minutes are two ways to say the budget: give one of them")
    if "steps" in layer:
        layer["minutes"] = None
    section = {"name": data, "dir": None if data_dir is None else str(data_dir)}
    layer["data"] = {name: value for name, value in section.items() if value is not None}
    layer["encoder"] = {} if encoder is None else {"name": encoder}
    return layer


def _other(old: Mapping[str, Any], new: Mapping[str, Any], section: bool) -> bool:
    """Tell whether two mappings name different things; a section without a name is the default."""
    known = section or "name" in old
    return known and "name" in new and new["name"] != old.get("name")
