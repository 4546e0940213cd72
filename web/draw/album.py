"""Drawings: a visitor's wish, and the files that come of it. It imports no torch."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from t2i.web.draw.wish import Part, Wish

KEPT = 12
"""Drawings of a visitor that are kept."""

WARNINGS = 20
"""The most warnings of a drawing."""


@dataclass(frozen=True)
class Cell:
    """One image of a drawing.

    Args:
        number: Number of its part, whose images have the same settings.
        part: The part.
        prompt: Index of its prompt.
        sample: Its index among the images of that prompt.
    """

    number: int
    part: Part
    prompt: int
    sample: int


@dataclass
class Drawing:
    """One drawing.

    Args:
        wish: What is drawn.
        folder: Folder of the files.
        number: Its number among the visitor's drawings, from 1.
        warnings: What the visitor should know.
    """

    wish: Wish
    folder: Path
    number: int = 1
    warnings: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is, in a line."""
        prompt = self.wish.prompts[0]
        short = prompt if len(prompt) <= 40 else f"{prompt[:37]}..."
        more = f" and {len(self.wish.prompts) - 1} more" if len(self.wish.prompts) > 1 else ""
        return f"{self.number}: {short}{more} ({', '.join(self.wish.models)})"

    def warn(self, sentence: str) -> None:
        """Add a warning, unless it is there.

        Args:
            sentence: The warning.
        """
        if sentence not in self.warnings and len(self.warnings) < WARNINGS:
            self.warnings.append(sentence)

    def folder_of(self, part: int) -> Path:
        """Return the folder of a part's images, as `t2i sample` writes it.

        Args:
            part: Number of the part.

        Returns:
            The path.
        """
        return self.folder / f"{part:03}"

    def file(self, cell: Cell) -> Path:
        """Return the file of an image.

        Args:
            cell: The image.

        Returns:
            Its path. It is there when the image is done.
        """
        return self.folder_of(cell.number) / f"{cell.prompt:04}-{cell.sample:03}.png"

    def cells(self) -> Iterator[Cell]:
        """List all images, those too that are not done.

        Yields:
            The images, part by part.
        """
        for number, part in enumerate(self.wish.parts()):
            for prompt in range(len(self.wish.prompts)):
                for sample in range(self.wish.images):
                    yield Cell(number, part, prompt, sample)

    def count(self) -> int:
        """Count the images that are done.

        Returns:
            Their number.
        """
        return sum(1 for _ in self.folder.glob("*/*-*.png"))

    def packed(self) -> Path | None:
        """Pack all images that are done, and the wish, into a ZIP file.

        Returns:
            The file; None if there is no image.
        """
        done = [cell for cell in self.cells() if self.file(cell).is_file()]
        if not done:
            return None
        file = self.folder / "t2i-drawing.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for cell in done:
                archive.write(self.file(cell), safe_name(cell))
            archive.writestr("drawing.json", json.dumps(asdict(self.wish), indent=1))
        return file


def safe_name(cell: Cell) -> str:
    """Make a file name that every system takes, and that no prompt can shape.

    Args:
        cell: The image.

    Returns:
        Such as "ldm-000-0000-001.png".
    """
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", cell.part.settings.model).strip(".-")[:60] or "model"
    return f"{model}-{cell.number:03}-{cell.prompt:04}-{cell.sample:03}.png"


class Album:
    """The drawings of one visitor, the newest first; the oldest are removed.

    Args:
        place: Folder in which the visitor's own folder is made. Its name cannot be guessed.
    """

    def __init__(self, place: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="drawings-", dir=place))
        self._drawings: OrderedDict[int, Drawing] = OrderedDict()
        self._count = 0

    def new(self, wish: Wish) -> Drawing:
        """Begin a drawing.

        Args:
            wish: What is drawn.

        Returns:
            The drawing, with a new folder.
        """
        self._count += 1
        folder = self._folder / f"{self._count:04}"
        folder.mkdir()
        drawing = Drawing(wish, folder, self._count)
        self._drawings[self._count] = drawing
        while len(self._drawings) > KEPT:
            _, old = self._drawings.popitem(last=False)
            shutil.rmtree(old.folder, ignore_errors=True)
        return drawing

    def titles(self) -> list[tuple[str, int]]:
        """List the drawings.

        Returns:
            Title and number of each, the newest first.
        """
        return [(drawing.title, number) for number, drawing in reversed(self._drawings.items())]

    def drawing(self, number: int | None) -> Drawing | None:
        """Find a drawing.

        Args:
            number: Its number.

        Returns:
            The drawing; None if it is not kept.
        """
        return self._drawings.get(number or 0)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)
