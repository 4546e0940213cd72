"""The base of a run that trains adapters: the weights that they change, which are not its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError


@dataclass(frozen=True)
class Base:
    """Where the base of a run is, and which one it is.

    Args:
        start: What `--from` named. None: the networks are those that the run's settings build, with
            the pretrained weights that they name.
        hash: Hash of its weights (`model_hash`).
    """

    start: Path | None
    hash: str

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
        known = isinstance(document, Mapping)
        start, digest = (document.get("from"), document.get("hash")) if known else (0, 0)
        if not (isinstance(start, str | None) and isinstance(digest, str)):
            raise UserError(f"{what}: 'base' must have 'from' and 'hash'; restore the file")
        return cls(None if start is None else Path(start), digest)

    def document(self) -> dict[str, Any]:
        """Describe it as JSON.

        Returns:
            Its place and hash.
        """
        return {"from": None if self.start is None else str(self.start), "hash": self.hash}

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
