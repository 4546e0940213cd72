"""The files of finished rows, OUT/scores/ROW.json, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2i.benchmarks.results import Row
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object, write_json

REMEDY = "remove the file, and the row is made again"


@dataclass(frozen=True)
class KeptRow:
    """A finished row as it is kept.

    Args:
        key: Everything that the row depends on.
        pictures: Whether all its images are kept as files.
        row: The row.
    """

    key: Mapping[str, Any]
    pictures: bool
    row: Row

    def write(self, path: Path) -> None:
        """Write the row to its file.

        Args:
            path: The file.
        """
        write_json(path, {"key": self.key, "pictures": self.pictures, "row": asdict(self.row)})


def read_kept(path: Path, blank: Row, key: Mapping[str, Any], scorer: Scorer) -> KeptRow | None:
    """Read the file of a finished row.

    Args:
        path: The file.
        blank: The row without scores: its name, kind, model and seed are expected.
        key: Entries of the key that the row must have.
        scorer: The measures that the row may have.

    Returns:
        The row. None if there is no file, or one with another key.

    Raises:
        UserError: The file is damaged, or holds another row.
    """
    if not path.exists():
        return None
    document = read_object(path, "scores", finite=True)
    known = document.get("key")
    if not isinstance(known, dict) or any(known.get(part) != value for part, value in key.items()):
        return None
    row = Row.parse(document.get("row"), str(path), REMEDY)
    if _identity(row) != _identity(blank):
        raise UserError(f"{path}: it is the row '{row.name[:40]}', not '{blank.name}'; {REMEDY}")
    for measures in row.scores.values():
        for name, scores in measures.items():
            try:
                scorer.prototypes[name].warnings(scores, None)
            except (LookupError, TypeError):
                raise UserError(
                    f"{path}: the scores of '{name[:40]}' are wrong; {REMEDY}"
                ) from None
    return KeptRow(known, document.get("pictures") is True, row)


def _identity(row: Row) -> tuple[str, str, str, int]:
    return row.name, row.kind, row.model, row.seed
