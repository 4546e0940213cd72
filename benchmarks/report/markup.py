"""HTML of the report's tables and texts. Nothing from elsewhere becomes markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from t2i.benchmarks.report.export import csv_text, latex_text
from t2i.benchmarks.report.sheets import Cell, Head, Line, Sheet
from t2i.benchmarks.report.table import ARROWS
from t2i.core.io.terminal import printable

TOO_FEW = "too few"


def text(words: str) -> str:
    """Escape a text from elsewhere for use in HTML and in attributes.

    Args:
        words: Any text.

    Returns:
        The text, without control characters, as HTML.
    """
    return escape(printable(words))


def table(sheet: Sheet, remarks: Sequence[str], kind: str = "") -> str:
    """Return a table with its export as CSV and LaTeX below it.

    Its lines become cards on a narrow screen. A script makes its heads sort it.

    Args:
        sheet: The table.
        remarks: Comments of the exported files.
        kind: Class of the table besides "cards". "": none.

    Returns:
        The HTML.
    """
    rank = '<th class="rank">#</th>' if sheet.ranked else ""
    heads = "".join(
        f'<th data-better="{head.better}">{text(head.title)} {ARROWS[head.better]}</th>'
        for head in sheet.heads
    )
    lines = "".join(_line(line, sheet) for line in sheet.lines)
    return (
        f'<div class="wide"><table class="cards {kind}" id="table-{sheet.name}">'
        f"<thead><tr>{rank}<th>name</th>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
        f"{_files(sheet, remarks)}"
    )


def _line(line: Line, sheet: Sheet) -> str:
    rank = f'<td class="rank">{text(line.rank)}</td>' if sheet.ranked else ""
    note = f"<small>{text(line.note)}</small>" if line.note else ""
    cells = "".join(map(_cell, line.cells, sheet.heads))
    return f'<tr class="{line.kind}">{rank}<th scope="row">{text(line.name)}{note}</th>{cells}</tr>'


def _cell(cell: Cell, head: Head) -> str:
    """Return a cell: a number with its range below it."""
    classes = [
        *(["best"] if cell.best else []),
        *(["few"] if cell.too_few else []),
        *([] if cell.value else ["missing"]),
    ]
    mark = f' class="{" ".join(classes)}"' if classes else ""
    value = f' data-value="{cell.value.mean!r}"' if cell.value else ""
    score, bracket, bounds = cell.text.partition(" (")
    shown = f"{text(score)}<small>({text(bounds)}</small>" if bracket else text(score)
    shown += f"<small>{TOO_FEW}</small>" if cell.too_few else ""
    label = text(f"{head.title} {ARROWS[head.better]}".strip())
    return f'<td data-label="{label}"{value}{mark}><span>{shown}</span></td>'


def _files(sheet: Sheet, remarks: Sequence[str]) -> str:
    """Return the table's text as CSV and LaTeX, to unfold, to copy and to download."""
    parts = [
        ("CSV", f"{sheet.name}.csv", "text/csv", csv_text(sheet, remarks)),
        ("LaTeX", f"{sheet.name}.tex", "application/x-tex", latex_text(sheet, remarks)),
    ]
    return f'<div class="files">{"".join(_file(*part) for part in parts)}</div>'


def _file(title: str, name: str, kind: str, content: str) -> str:
    data = quote(content.encode(errors="backslashreplace"))
    return (
        f'<details><summary>{title}</summary><a download="{name}" '
        f'href="data:{kind};charset=utf-8,{data}">Save {name}</a><pre>{escape(content)}</pre>'
        "</details>"
    )


def terms(facts: Iterable[tuple[str, str]]) -> str:
    """Return a list of names with texts.

    Args:
        facts: (name, text) of each entry, neither of them HTML.

    Returns:
        The HTML.
    """
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(words)}</dd>" for name, words in facts)
    return f"<dl>{lines}</dl>"
