"""A folder that is filled in numbered parts, each of which is there whole or not at all.

FOLDER/part-00000.SUFFIX   what a part holds, in its owner's format
FOLDER/part-00000.json     what goes with it; written last, so its presence means that the part is complete
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
from t2i.core.io.files import MANIFEST, seal, verify, write_json


def ranges(count: int, step: int) -> list[range]:
    """Splits the numbers 0 to `count` - 1 into consecutive ranges of `step`, the last one shorter."""
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


@dataclass(frozen=True)
class PartFolder:
    """A folder of parts.

    Attributes:
        folder: Where the parts are.
        count: Number of items, over all parts.
        step: Items in a part; the last part may hold fewer.
        suffix: File name extension of the parts, with the dot.
    """

    folder: Path
    count: int
    step: int
    suffix: str

    def file(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}{self.suffix}"

    def items(self, number: int) -> range:
        """The items of a part."""
        return ranges(self.count, self.step)[number]

    def missing(self) -> list[int]:
        """The numbers of the parts that are still to be made."""
        numbers = range(len(ranges(self.count, self.step)))
        return [number for number in numbers if not self._note(number).exists()]

    def complete(self, number: int, note: Any) -> None:
        """Marks a part, whose file has been written, as complete.

        Args:
            number: Which part.
            note: A JSON document that is kept beside it.
        """
        write_json(self._note(number), note)

    def _note(self, number: int) -> Path:
        return self.file(number).with_suffix(".json")

    @property
    def is_sealed(self) -> bool:
        """Whether all parts have been made. Whether they are undamaged is not checked."""
        return (self.folder / MANIFEST).exists()

    def seal(self) -> None:
        """Writes the manifest, and removes what killed commands have left unfinished."""
        for litter in [*self.folder.glob("*.tmp"), *self.folder.glob(".*.tmp")]:
            litter.unlink(missing_ok=True)
        seal(self.folder)

    def discard_if_damaged(self, what: str, say: Callable[[str], None]) -> None:
        """Empties a sealed folder whose bytes are not those of its manifest.

        Args:
            what: Name of the contents, for the message.
            say: Receives a warning if the folder is emptied.
        """
        if not self.is_sealed:
            return
        try:
            verify(self.folder, what)
        except UserError as error:
            say(f"warning: {error}: making it anew")
            shutil.rmtree(self.folder)
            self.folder.mkdir()
