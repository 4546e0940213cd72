"""Folders that are filled in numbered parts, so that a command that was killed can continue.

FOLDER/part-00000.SUFFIX   the content of a part, in the caller's format FOLDER/part-00000.json
the caller's note on it; written last, so its presence means that the part is complete
FOLDER/manifest.json       sizes and SHA-256 of everything; written when no part is missing

A command that is killed leaves complete parts behind. The next one makes those that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import MANIFEST, seal, verify


def ranges(count: int, step: int) -> list[range]:
    """Split the numbers 0 to `count` - 1 into consecutive ranges.

    Args:
        count: How many numbers.
        step: Length of each range; the last one may be shorter.

    Returns:
        The ranges, in order.
    """
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


@dataclass(frozen=True)
class PartFolder:
    """A folder of parts.

    Args:
        folder: Where the parts are.
        count: Number of items in all parts together.
        step: Items in a part; the last part may hold fewer.
        suffix: File name extension of the parts, with the dot.
    """

    folder: Path
    count: int
    step: int
    suffix: str

    def file(self, number: int) -> Path:
        """Return the path of a part.

        Args:
            number: Which part, from 0.

        Returns:
            The path; the file need not exist yet.
        """
        return self.folder / f"part-{number:05d}{self.suffix}"

    def items(self, number: int) -> range:
        """Return which items belong to a part.

        Args:
            number: Which part, from 0.

        Returns:
            The numbers of the items, from 0 to `count` - 1.
        """
        return ranges(self.count, self.step)[number]

    def missing(self) -> list[int]:
        """Return which parts are not complete yet.

        Returns:
            Their numbers, in order.
        """
        numbers = range(len(ranges(self.count, self.step)))
        return [number for number in numbers if not self._note(number).exists()]

    def complete(self, number: int, note: Any) -> None:
        """Mark a part as complete; its file must have been written.

        Args:
            number: Which part, from 0.
            note: A JSON document that is stored beside it.
        """
        write_json(self._note(number), note)

    def _note(self, number: int) -> Path:
        return self.file(number).with_suffix(".json")

    @property
    def is_sealed(self) -> bool:
        """Whether all parts have been made. Their bytes are not checked."""
        return (self.folder / MANIFEST).exists()

    def seal(self) -> None:
        """Write the manifest, and remove the unfinished files of killed commands."""
        for litter in [*self.folder.glob("*.tmp"), *self.folder.glob(".*.tmp")]:
            litter.unlink(missing_ok=True)
        seal(self.folder)

    def discard_if_damaged(self, what: str, say: Callable[[str], None]) -> None:
        """Empty a sealed folder that differs from its manifest.

        A folder without a manifest stays as it is.

        Args:
            what: Name of the contents, for the warning.
            say: Called with a warning if the folder is emptied.
        """
        if not self.is_sealed:
            return
        try:
            verify(self.folder, what)
        except UserError as error:
            say(f"warning: {error}: making it anew")
            shutil.rmtree(self.folder)
            self.folder.mkdir()
