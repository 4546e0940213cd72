"""A choice: the registry name of a thing, with its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from t2i.core.settings import Config

C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Choice(Generic[C]):
    """A registered thing that was chosen by name, with its checked settings.

    Args:
        name: Registry name.
        config: Settings, an instance of the class that its specification names.
    """

    name: str
    config: C

    def dump(self) -> dict[str, Any]:
        """Return the choice as JSON.

        Returns:
            "name" and every setting.
        """
        return {"name": self.name, **self.config.model_dump(mode="json")}
