"""A choice: something registered, by name, with its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from t2i.core.settings import Config

C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Choice(Generic[C]):
    """Something chosen by registry name, with its settings."""

    name: str
    config: C

    def dump(self) -> dict[str, Any]:
        """As JSON: the name and every setting."""
        return {"name": self.name, **self.config.model_dump(mode="json")}
