"""The base of a run that trains adapters: the weights that they change, which are not its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2i.core.errors import UserError


@dataclass(frozen=True)
class Base:
    """Where the base of a run is, and which one it is.

    Args:
        start: What `--from` named. None: the networks are those that the run's settings build, with
            the pretrained weights that they name.
        hash: Hash of its weights (`model_hash`).
        settings: Settings that opened it, if it is another project's.
    """

    start: str | None
    hash: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Any, what: str) -> Base | None:
        """Read what `document` returned.

        Args:
            document: The JSON value. None: there is no base.
            what: Name of the file, for errors.

        Returns:
            The base, or None.

        Raises:
            UserError: It has another form.
        """
        if document is None:
            return None
        told = document if isinstance(document, Mapping) else {}
        start, digest, settings = told.get("from"), told.get("hash"), told.get("settings", {})
        known = start is None or isinstance(start, str)
        if not (known and isinstance(digest, str) and isinstance(settings, Mapping)):
            raise UserError(f"{what}: 'base' must have 'from' and 'hash'; restore the file")
        return cls(start, digest, settings)

    def document(self) -> dict[str, Any]:
        """Describe it as JSON.

        Returns:
            Its place, hash and settings.
        """
        return {"from": self.start, "hash": self.hash, "settings": dict(self.settings)}

    def check(self, found: str, what: str) -> None:
        """Check that weights are those of the base.

        Args:
            found: Their hash.
            what: Name of the run that needs the base, for errors.

        Raises:
            UserError: They are others.
        """
        if found != self.hash:
            place = self.start or "what its settings build"
            raise UserError(
                f"{what}: it changes a base with hash {self.hash}, and {place} now has {found}: "
                "put the first weights back there"
            )
