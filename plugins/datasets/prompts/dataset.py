"""The data set `prompt-table`: a table of prompts, without images.

    DIR/FILE    a table with a column of prompts

Models are sampled and scored on it. Nothing can be trained on it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Contents, Dataset, Example
from t2i.core.io.columns import folded
from t2i.core.io.files import read_file
from t2i.core.io.tables import Table, read_table
from t2i.plugins.datasets.prompts.config import PromptsConfig

NAME = "prompt-table"


class Prompts(Dataset):
    """Prompts in the order of their table.

    Args:
        prompts: The prompts.
        image_size: Height and width of the images that are sampled, pixels.
        found: What was found, one line.
    """

    def __init__(self, prompts: tuple[str, ...], image_size: int, found: str) -> None:
        self._prompts, self.image_size, self._found = prompts, image_size, found

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> Example:
        raise UserError(
            f"data set '{NAME}' has no images: sample or score models on it, and train them on "
            "another data set"
        )

    def captions(self, index: int) -> tuple[str, ...]:
        return (self._prompts[index],)

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self._prompts).encode(errors="replace")).hexdigest()[:16]

    def contents(self) -> Contents:
        return Contents((self._found,))


def build(config: PromptsConfig, split: str) -> Prompts:
    """Read the table.

    Args:
        config: Settings.
        split: "val", the only one.

    Returns:
        The prompts.

    Raises:
        UserError: The folder or the table is missing, or the table has no such column.
    """
    if config.dir is None:
        raise UserError(f"data set '{NAME}' lies in a folder: say which with --data-dir")
    path = Path(config.dir).expanduser() / config.file
    try:
        table = read_table(config.file, read_file(path, f"data set '{NAME}'"), str(path))
    except OSError as error:
        raise UserError(f"data set '{NAME}': {path}: {error.strerror or error}") from None
    prompts = _prompts(table, config.column, path)
    return Prompts(prompts, config.image_size, f"prompts: {len(prompts)} in {path}")


def _prompts(table: Table, wanted: str, path: Path) -> tuple[str, ...]:
    """Read the column of prompts. Rows without a prompt are left out."""
    column = next((c for c in table.columns if folded(c) == folded(wanted)), None)
    if column is None:
        raise UserError(
            f"data set '{NAME}': {path} has no column '{wanted}'; its columns are "
            f"{', '.join(table.columns[:9])}; set data.column"
        )
    texts = (str(row.values.get(column) or "").strip() for row in table.rows)
    return tuple(text for text in texts if text)
