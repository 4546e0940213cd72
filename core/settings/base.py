"""The base class of settings.

Everything with settings has a pydantic class for them. Instances are keyword-only and frozen. An
unknown key is an error that names the nearest known key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic

from t2i.core.errors import UserError, nearest
from t2i.core.settings.layers import merge

MOST_LAYERS = 1000
"""Upper bound of settings that count layers or blocks.

Without it, a configuration from elsewhere could keep a process building for ever.
"""


class Config(pydantic.BaseModel):
    """The base class of all settings.

    Each field has a docstring below it. Its first sentence is shown by `t2i settings`.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Current names of renamed settings, by their former names.

    Both names are read; the current one is written. The entries of base classes apply too.
    """

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], where: str, beneath: Mapping[str, Any] | None = None
    ) -> Self:
        """Check settings and make an instance of them.

        Args:
            settings: Settings by name. Former names are allowed.
            where: Name of the settings in error messages.
            beneath: Settings for the keys that `settings` lacks. None: the defaults.

        Raises:
            UserError: A setting is unknown, missing or wrong. The message is one line with `where`,
                the key and the remedy.
        """
        try:
            return cls(**merge(cls.current(beneath or {}), cls.current(settings)))
        except pydantic.ValidationError as error:
            raise UserError(f"{where}: {_explain(cls, error)}") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def current(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Replace former names of settings by current ones, in nested settings too.

        Args:
            settings: Settings by current or former name.

        Returns:
            The settings by current name.

        Raises:
            ValueError: A setting is given under both of its names, or a name is no text.
        """
        names = {
            old: new
            for base in reversed(cls.__mro__)
            for old, new in vars(base).get("renamed", {}).items()
        }
        present: dict[str, Any] = {}
        for key, value in settings.items():
            if not isinstance(key, str):
                raise ValueError(f"{key!r:.80} is no name of a setting")
            name = names.get(key, key)
            if name in present or (name != key and name in settings):
                raise ValueError(f"'{key}' is the former name of '{name}': give one of them")
            inner = _settings_class(cls, name)
            present[name] = inner.current(value) if inner and isinstance(value, Mapping) else value
        return present

    @pydantic.model_validator(mode="before")
    @classmethod
    def _renamed(cls, settings: Any) -> Any:
        return cls.current(settings) if isinstance(settings, Mapping) else settings


def _settings_class(cls: type[pydantic.BaseModel], field: str) -> type[Config] | None:
    """Return the class of a field that has nested settings, None for other fields."""
    info = cls.model_fields.get(field)
    inner = info.annotation if info else None
    return inner if isinstance(inner, type) and issubclass(inner, Config) else None


_REASONS = {
    "tuple_type": "it takes a list, such as [1,2]",
    "list_type": "it takes a list, such as [1,2]",
    "dict_type": "it takes names and values, such as {name: value}",
}
"""What is wrong, where pydantic speaks of Python's types."""


def _explain(cls: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    """Describe the first error of a validation in one line."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        prefix = "".join(part + "." for part in path[:-1])
        return f"no setting is named '{key}'{nearest(key, [prefix + name for name in known])}"
    if first["type"] == "missing":
        return f"setting '{key}' is missing"
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"setting '{key}' = {first['input']!r:.80}: {reason}" if key else reason


def _fields_at(cls: type[pydantic.BaseModel], path: list[str]) -> list[str]:
    """List the fields of the nested settings at `path`; none if there are no settings there."""
    for part in path:
        inner = _settings_class(cls, part)
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)
