"""What the commands say: answers on stdout, everything else on stderr; nobody's text can command
the terminal.

The answer goes to the real stdout. During a command `sys.stdout` is stderr, so that whatever a
plugin or a library prints is no part of the answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from t2i.core.io.terminal import note as note
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
PIPED_WIDTH = 200


def stdout() -> TextIO:
    """The process's own standard output, wherever `sys.stdout` points."""
    assert sys.__stdout__ is not None
    return sys.__stdout__


def speaks() -> bool:
    """Of several processes only the first one."""
    return os.environ.get("RANK", "0") == "0"


def answer(text: str) -> None:
    """A line, or a whole document, of the answer."""
    print(text, file=stdout())


def answer_json(document: Any) -> None:
    """The one JSON document of `--json`, in ASCII."""
    answer(json.dumps(document, indent=2))


def answer_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn to the width of a terminal, plain and aligned (one row a line) where it is
    piped."""
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
    """rich's console on the real stdout: as wide as the terminal, or wide enough for a table that
    is piped."""
    from rich.console import Console

    return Console(file=stdout(), width=None if stdout().isatty() else PIPED_WIDTH)
