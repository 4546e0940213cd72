"""The sections of the board: its table of `shapes`, and one for each folder of real pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.benchmarks.board.entering import models_on, rows_of
from t2i.benchmarks.board.members import wanted_models
from t2i.benchmarks.board.tables import PARTS, models
from t2i.core.errors import UserError

BOARD = Path("docs/board")
"""Folder of the rows of `shapes`, seen from the repository's root."""

IMAGE_SIZE = 64
"""Size of the images of folders of pictures, pixels."""

PICTURES_MINUTES = 10
"""Training time of a model on a folder of pictures, on one core, minutes."""

BEST = 12
"""Number of models that are trained on a folder of pictures: the best of `shapes`."""


@dataclass(frozen=True)
class Section:
    """A table of the board.

    Args:
        name: Its name, which marks its place in docs/board.md. "": the table of `shapes`.
        bench: The benchmark and its options, as `t2i bench` takes them.
        minutes: Training time of a model on one core, minutes.
        folder: The folder of pictures. None: the benchmark needs none.
    """

    name: str
    bench: Sequence[str]
    minutes: float
    folder: Path | None = None

    @property
    def rows(self) -> Path:
        """Folder of its rows, seen from the repository's root."""
        return BOARD / self.name

    def wanted(self, root: Path) -> list[str]:
        """List the models that have no row yet.

        Args:
            root: The repository's root.

        Returns:
            Their names: of `shapes` all that are missing, of pictures those of the best on `shapes`
            that are missing.

        Raises:
            UserError: No model has a row of `shapes`, so that none is known to be good.
        """
        there = models_on(root / self.rows)
        return [name for name in self._candidates(root) if name not in there]

    def _candidates(self, root: Path) -> list[str]:
        """List the models that belong in the section."""
        if not self.name:
            return wanted_models()
        best = rows_of(root / BOARD)
        if best is None:
            raise UserError(f"{root / BOARD}: no model has a row; name some with --models")
        return [standing.rows[0].model for standing in models(best)][:BEST]


SHAPES = Section("", ("shapes",), 20)


def of_pictures(folder: Path) -> Section:
    """Return the section of a folder of captioned pictures.

    Args:
        folder: The folder, as `t2i bench pictures` takes it. Its name is the section's.

    Returns:
        The section.

    Raises:
        UserError: The folder's name cannot be that of a section.
    """
    name = folder.resolve().name
    if name in PARTS or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(
            f"{folder}: its name becomes a section's, which has letters, digits, '.', '_' and '-' "
            f"alone, and is none of {', '.join(PARTS)}: give it another"
        )
    options = ("--data-dir", str(folder), "--image-size", str(IMAGE_SIZE))
    return Section(name, ("pictures", *options), PICTURES_MINUTES, folder)
