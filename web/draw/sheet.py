"""Drawings and their progress as HTML. All text of others is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from t2i.web.draw.album import Cell, Drawing, safe_name
from t2i.web.draw.desk import Job
from t2i.web.draw.wish import OF_THE_FORM, Axis
from t2i.web.markup import escaped

EMPTY = '<p class="t2i-hint">Images appear here. Each carries its settings.</p>'


def sheet(drawing: Drawing) -> str:
    """Show a drawing: a grid, or one for each model and prompt that is no side of it.

    Args:
        drawing: The drawing; images that are not done are left blank.

    Returns:
        HTML.
    """
    wish = drawing.wish
    cells: dict[tuple[str, ...], list[Cell]] = {}
    rest = [name for name in OF_THE_FORM if name not in (wish.x.name, wish.y.name)]
    for cell in drawing.cells():
        key = tuple(_value(drawing, cell, name) for name in (wish.y.name, wish.x.name, *rest))
        cells.setdefault(key, []).append(cell)
    heads = list(dict.fromkeys(key[2:] for key in cells))
    tables = [_table(drawing, head, cells) for head in heads]
    return f'<div class="t2i-sheet" data-drawing="{drawing.number}">{"".join(tables)}</div>'


def _table(
    drawing: Drawing, head: tuple[str, ...], cells: dict[tuple[str, ...], list[Cell]]
) -> str:
    """Show the grid of one model or prompt, or the only one."""
    x, y = drawing.wish.x, drawing.wish.y
    columns, rows = drawing.wish.values(x), drawing.wish.values(y)
    top = "".join(f'<th scope="col">{_label(x, value)}</th>' for value in columns)
    body = "".join(
        f'<tr><th scope="row">{_label(y, row)}</th>'
        + "".join(f"<td>{_images(drawing, cells[(row, column, *head)])}</td>" for column in columns)
        + "</tr>"
        for row in dict.fromkeys(rows)
    )
    caption = f"<caption>{escaped(' · '.join(head))}</caption>" if head else ""
    return (
        f'<div class="t2i-scroll" tabindex="0"><table>{caption}<thead><tr><td></td>{top}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _images(drawing: Drawing, cells: Sequence[Cell]) -> str:
    return "".join(_image(drawing, cell) for cell in cells)


def _image(drawing: Drawing, cell: Cell) -> str:
    """Show one image: a click opens it, and its file carries the settings."""
    file = drawing.file(cell)
    if not file.is_file():
        return '<span class="t2i-blank"></span>'
    prompt, settings = drawing.wish.prompts[cell.prompt], cell.part.settings
    told = escaped(f"{prompt} · {settings.model} · seed {settings.seed}, image {cell.sample + 1}")
    return (
        f'<a href="/gradio_api/file={quote(str(file))}" download="{escaped(safe_name(cell))}" '
        f'title="{told}"><img src="/gradio_api/file={quote(str(file))}" alt="{told}"></a>'
    )


def _label(axis: Axis, value: str) -> str:
    """Name a row or a column. Models and prompts speak for themselves."""
    return escaped(value) if axis.name in OF_THE_FORM else escaped(f"{axis.name} {value}")


def _value(drawing: Drawing, cell: Cell, name: str) -> str:
    """Return the value of a cell on an axis, as the wish lists it."""
    if name == "prompt":
        return drawing.wish.prompts[cell.prompt]
    if name == "model":
        return cell.part.settings.model
    return cell.part.values[name]


def status(job: Job | None, place: int, drawing: Drawing | None, message: str = "") -> str:
    """Show how far a drawing is, and what is to be known of it.

    Args:
        job: The job. None: there is none.
        place: How many jobs come before it.
        drawing: The drawing. None: there is none.
        message: An error. "": none.

    Returns:
        HTML.
    """
    lines = [f'<p class="t2i-error" role="alert">{escaped(message)}</p>'] if message else []
    if job is not None:
        lines.append(_counted(job, drawing) or progress(job, place))
    lines += [
        f'<p class="t2i-warning">{escaped(warning)}</p>'
        for warning in (drawing.warnings if drawing else ())
    ]
    return f'<div class="t2i-status" aria-live="polite">{"".join(lines)}</div>'


def _counted(job: Job, drawing: Drawing | None) -> str:
    """Say how many images an ended drawing has; "" if it goes on or failed."""
    if job.state not in ("done", "cancelled"):
        return ""
    count = drawing.count() if drawing else 0
    images = f"{count} image{'' if count == 1 else 's'}"
    said = images if job.state == "done" else f"cancelled; {images} kept"
    return f'<p class="t2i-done">{said}</p>'


def progress(job: Job, place: int) -> str:
    """Show how far a job is.

    Args:
        job: The job.
        place: How many jobs come before it.

    Returns:
        HTML.
    """
    if job.state == "waiting" and place == 0:
        return '<p class="t2i-now">starting</p>'
    if job.state == "waiting":
        others = "1 drawing" if place == 1 else f"{place} drawings"
        return f'<p class="t2i-place">in the queue: {others} before yours</p>'
    if job.state == "failed":
        return f'<p class="t2i-error" role="alert">{escaped(job.error)}</p>'
    if job.ended:
        return f'<p class="t2i-done">{job.state}</p>'
    percent = round(100 * job.done)
    return (
        f'<p class="t2i-now">{escaped(job.text)}</p><progress max="100" value="{percent}">'
        f"{percent} %</progress>{_previews(job.previews)}"
    )


def _previews(images: Any) -> str:
    """Show what the images look like at present."""
    if images is None:
        return ""
    from t2i.core.io.images import png

    shown = "".join(
        f'<img alt="preview" src="data:image/png;base64,{base64.b64encode(png(one)).decode()}">'
        for one in images
    )
    return f'<div class="t2i-previews">{shown}</div>'
