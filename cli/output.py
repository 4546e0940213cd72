"""Output of the commands: answers on stdout, everything else on stderr.

During a command `sys.stdout` is stderr, so nothing that a plugin or a library prints mixes with the
answer. Text from files and plugins is printed without control characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from t2i.core.io.json_files import finite
from t2i.core.io.launched import rank
from t2i.core.io.streams import lasting
from t2i.core.io.terminal import note as note
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
PIPED_WIDTH = 200


def stdout() -> TextIO:
    """Return the process's own standard output, wherever `sys.stdout` points.

    Returns:
        The stream.
    """
    assert sys.__stdout__ is not None  # the command opens what is closed
    return lasting(sys.__stdout__, needed=True)


def speaks() -> bool:
    """Tell whether this process prints. Of several processes, only the first one does.

    Returns:
        True in the first process.
    """
    return rank() == 0


def answer(text: str) -> None:
    """Print a part of the answer.

    Args:
        text: A line, or a whole document.
    """
    print(text, file=stdout())


def answer_json(document: Any) -> None:
    """Print the document of `--json`, in ASCII.

    Args:
        document: What JSON can hold. Numbers that are not finite, which JSON lacks, become null.
    """
    answer(json.dumps(finite(document), indent=2, allow_nan=False))


def answer_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: fitted to a terminal, or one row a line where stdout is a file or a pipe.

    Args:
        titles: Titles of the columns.
        rows: Cells, as many in each row as there are titles.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if stdout().isatty():
        _draw(titles, cells)
        return
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for row in [titles, *cells]:
        answer(
            GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _draw(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, title in enumerate(titles):
        table.add_column(Text(title, "bold"), style="cyan" if i == 0 else "", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def console() -> Console:
    """Make rich's console for the real stdout.

    Returns:
        A console as wide as the terminal, or 200 columns wide where stdout is a file or a pipe.
    """
    from rich.console import Console

    return Console(file=stdout(), width=None if stdout().isatty() else PIPED_WIDTH)
