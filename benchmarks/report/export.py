"""Tables of the report as files for a paper: CSV, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from t2i.benchmarks.report.columns import explained
from t2i.benchmarks.report.facts import budget_text, protocol_facts
from t2i.benchmarks.report.sheets import Cell, Head, Sheet, sheets
from t2i.benchmarks.report.table import DASH, brackets_note
from t2i.benchmarks.results import Results
from t2i.core.io.files import write_bytes
from t2i.core.io.terminal import printable

MOST_HEADS = 6  # columns of numbers in a LaTeX table that has fewer lines than columns
FORMULA = ("=", "+", "-", "@")  # how a text begins that spreadsheets run
MINUS = "\N{MINUS SIGN}"
DAGGER = r"$^\dagger$"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", DASH: "--",
    "…": r"\ldots{}", "·": r"\textperiodcentered{}", MINUS: "$-$",
}  # fmt: skip
_SIGN = re.compile(r"(?<!e)-(?=\d)")
_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "none": ""}


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write every table of the report as CSV and as LaTeX.

    Args:
        results: The results.
        folder: Where to write NAME.csv and NAME.tex of each table. It is made if it is missing.

    Returns:
        The files.
    """
    remarks, written = protocol_lines(results), []
    for sheet in sheets(results):
        for ending, content in (("csv", csv_text), ("tex", latex_text)):
            path = folder / f"{sheet.name}.{ending}"
            write_bytes(path, content(sheet, remarks).encode(errors="backslashreplace"))
            written.append(path)
    return written


def protocol_lines(results: Results) -> list[str]:
    """Say what the scores of a table depend on, for its comments.

    Args:
        results: The results.

    Returns:
        Lines of plain text.
    """
    lines = [
        f"t2i bench {results.benchmark}, protocol {results.protocol.get('protocol')}, "
        f"{results.created}",
        results.command,
        budget_text(results),
        brackets_note(results.ranking(), results.columns),
        *(f"{name}: {text}" for name, text in protocol_facts(results)),
        *(
            f"{'; '.join(e.titles)}: {e.what}. {e.reading}"
            for e in explained(results.columns, results.protocol)
        ),
    ]
    return [line for text in lines if (line := printable(text))]


def csv_text(sheet: Sheet, remarks: Sequence[str] = ()) -> str:
    """Write a table as CSV, with all digits, and with the ends of ranges in columns of their own.

    Args:
        sheet: The table.
        remarks: Comments, which stand above the table as lines that begin with "#".

    Returns:
        The text. A name that a spreadsheet would run as a formula begins with an apostrophe.
    """
    ranged = [
        any(c.value and c.value.low is not None for c in column)
        for column in zip(*(line.cells for line in sheet.lines), strict=True)
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    noted = any(line.note for line in sheet.lines)
    before = ["rank"] * sheet.ranked + ["name"] + ["source"] * noted
    writer.writerow(before + list(_csv_heads(sheet.heads, ranged)))
    for line in sheet.lines:
        own = [line.rank] * sheet.ranked + [_cell_text(line.name)]
        own += [_cell_text(line.note)] * noted
        writer.writerow(own + list(_csv_cells(line.cells, ranged)))
    comments = [sheet.title, *remarks, *_marked(sheet)]
    return "".join(f"# {printable(text)}\n" for text in comments) + buffer.getvalue()


def _csv_heads(heads: Sequence[Head], ranged: Sequence[bool]) -> Iterator[str]:
    for head, wide in zip(heads, ranged, strict=True):
        name = _cell_text(head.title)
        yield f"{name} [{head.unit}]" if head.unit else name
        if wide:
            yield from (f"{name} low", f"{name} high")


def _csv_cells(cells: Sequence[Cell], ranged: Sequence[bool]) -> Iterator[str]:
    for cell, wide in zip(cells, ranged, strict=True):
        value = cell.value
        yield _digits(value.mean if value else None)
        if wide:
            yield from (
                _digits(value.low if value else None),
                _digits(value.high if value else None),
            )


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _cell_text(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _marked(sheet: Sheet) -> list[str]:
    """Say which columns have too few images."""
    columns = zip(sheet.heads, zip(*(line.cells for line in sheet.lines), strict=True), strict=True)
    few = [head.title for head, cells in columns if any(cell.too_few for cell in cells)]
    return [f"too few images for {', '.join(few)}: not to be trusted"] if few else []


def latex_text(sheet: Sheet, remarks: Sequence[str] = ()) -> str:
    r"""Write a table for LaTeX, as a `tabular` with the rules of booktabs.

    A table with few lines and many columns is turned: its scores become lines.

    Args:
        sheet: The table.
        remarks: Comments, which stand above the table.

    Returns:
        The text, for `\input`. The best scores are bold; a dagger marks scores of too few images.
    """
    cells = [
        [*([latex(line.rank)] * sheet.ranked), latex(line.name), *map(_latex_cell, line.cells)]
        for line in sheet.lines
    ]
    titles = [latex(head.title) + _ARROWS[head.better] for head in sheet.heads]
    grid = [[*([r"\#"] * sheet.ranked), "", *titles], *cells]
    if len(sheet.heads) > max(MOST_HEADS, len(sheet.lines)):
        grid = [list(column) for column in zip(*grid, strict=True)]
        grid = [*grid[1:2], *grid[:1], *grid[2:]] if sheet.ranked else grid  # names are the head
        left = 1
    else:
        left = 1 + sheet.ranked
    body = [" & ".join(line) + r" \\" for line in grid]
    comments = [sheet.title, *remarks, *_marked(sheet), r"needs \usepackage{booktabs}"]
    return "\n".join(
        [
            *(f"% {printable(text)}" for text in comments),
            rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(grid[0]) - left)}}}",
            r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", "",
        ]
    )  # fmt: skip


def _latex_cell(cell: Cell) -> str:
    score, _, bounds = _SIGN.sub(MINUS, cell.text).partition(" (")
    text = latex(score)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    if cell.too_few:
        text += DAGGER
    return rf"{text} {{\scriptsize ({latex(bounds)}}}" if bounds else text


def latex(text: str) -> str:
    """Escape a text for LaTeX.

    Args:
        text: Any text.

    Returns:
        The text on one line, in which nothing is a command.
    """
    return "".join(_LATEX.get(character, character) for character in printable(text))
