"""The report, report.html: one file without scripts or external resources.

It is laid out for phones, desktops and print.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from t2i.benchmarks.report.table import (
    ARROWS,
    COSTS,
    DASH,
    brackets_note,
    cost,
    likelihood_note,
    number,
    parts_note,
    rank,
    spent_note,
    with_range,
)
from t2i.benchmarks.results import VARIETY, Column, Results, Row, Standing
from t2i.benchmarks.run.grids import REAL, load_images, nearest_to
from t2i.core.interfaces.scoring import Published
from t2i.core.io.files import write_bytes
from t2i.core.io.terminal import printable
from t2i.core.registry.tables import registry

STYLE = Path(__file__).with_name("page.css")
LARGEST = 160  # width in pixels to which larger images are reduced
SMALL = 64  # pixels; narrower images are embedded losslessly, and the browser enlarges them


def write_report(results: Results) -> Path:
    """Write the report of a benchmark.

    Args:
        results: The results. Images of the grid are read from `results.out`.

    Returns:
        The file, `results.report`.
    """
    write_bytes(results.report, render(results).encode(errors="backslashreplace"))
    return results.report


def _text(text: str) -> str:
    """Escape a text from elsewhere for use in HTML and in attributes."""
    return escape(printable(text))


def render(results: Results) -> str:
    """Render the report.

    Args:
        results: The results. Images of the grid are read from `results.out`.

    Returns:
        The page, HTML. Sections without content are left out.
    """
    title = f"t2i bench {results.benchmark}"
    standings = results.ranking()
    sections = [
        ("Ranking", _ranking(results, standings)),
        ("Published elsewhere", _published(results)),
        ("Same captions, same noise", _images(results)),
        ("Right by attribute", _bars(results, standings)),
        ("Cost", _costs(results, standings)),
        ("Training", _curves(results.rows)),
        ("Protocol", _protocol(results)),
    ]
    body = "".join(
        f"<section><h2>{_text(name)}</h2>{html}</section>" for name, html in sections if html
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE.read_text('utf-8')}</style></head><body>"
        f"<header><h1>{_text(title)}</h1>{_verdict(results, standings)}</header>{body}"
        f"<footer>{_text(results.created)} · {_text(results.command or 't2i')}</footer>"
        "</body></html>\n"
    )


def _verdict(results: Results, standings: Sequence[Standing]) -> str:
    """Return the headline scores in one sentence, and the training budget in another."""
    column = results.headline
    found = [(s.name, v) for s in standings if s.rank and (v := s.value(column))]
    scores = ", ".join(f"<b>{_text(name)}</b> {with_range(value)}" for name, value in found)
    jobs = results.budget.get("jobs", 1)
    budget = " ".join(f"{v:g} {unit}" for unit, v in results.budget.items() if unit != "jobs")
    models = [row for row in results.rows if row.kind == "model"]
    given = models and all(row.training.get("given") for row in models)
    budget = "All models were given as runs" if given else f"Training budget {budget} a model"
    if jobs > 1 and not given:
        longer = f", for {jobs} times as long" if "minutes" in results.budget else ""
        budget += f" (trained {jobs} at once, each on its share of the cores{longer})"
    where = "the samples of one caption" if column.set == VARIETY else f"captions of “{column.set}”"
    machine = (
        f"{results.environment.get('device', '?')}, "
        f"threads: {results.environment.get('threads', '?')}"
    )
    return (
        f'<p class="verdict">{_text(column.title)} on {_text(where)}: '
        f"{scores or 'no model was scored'}.</p>"
        f"<p>{_text(budget)}, on {_text(machine)}.</p>"
    )


def _ranking(results: Results, standings: Sequence[Standing]) -> str:
    """Return the table of scores, the warnings and the notes below it."""
    heads = "".join(f"<th>{_text(c.title)} {ARROWS[c.better]}</th>" for c in results.columns)
    best = {column: _best(standings, column) for column in results.columns}
    lines = "".join(_ranking_line(s, results.columns, best) for s in standings)
    warnings = [
        f"<li><b>{_text(row.name)}</b>: {_text(text)}</li>"
        for row in results.rows
        for text in row.warnings
    ]
    given = [s.name for s in standings if any(row.training.get("given") for row in s.rows)]
    notes = [
        f"{brackets_note(standings, results.columns)}Grey rows are not models: the first is the "
        f"ceiling ({_text(str(results.protocol.get('real_images')))}), the last the floor.",
        f"Not trained within the budget, but given as a run: {_text(', '.join(given))}."
        if given
        else "",
        _reference(results.protocol),
        _text(likelihood_note(results)),
        *(
            f"Left out: {_text(name)} ({_text(reason)})."
            for name, reason in results.left_out.items()
        ),
    ]
    flags = f'<ul class="flags">{"".join(warnings)}</ul>' if warnings else ""
    table = _table(f"<th>#</th><th></th>{heads}", lines)
    below = f"<p class='note'>{' '.join(note for note in notes if note)}</p>"
    return f"{table}{flags}{_explained(results)}{below}"


def _explained(results: Results) -> str:
    """Say what the columns of the ranking measure: the summary of each metric, once."""
    titles: dict[str, list[str]] = {}
    for column in results.columns:
        metric = results.protocol["measures"].get(column.measure, {}).get("metric")
        if metric in registry().metrics:
            titles.setdefault(registry().metrics[metric].summary, []).append(column.title)
    lines = "".join(
        f"<dt>{_text('; '.join(dict.fromkeys(names)))}</dt><dd>{_text(summary)}.</dd>"
        for summary, names in titles.items()
    )
    arrows = "<dt>↑ ↓</dt><dd>Higher is better; lower is better.</dd>"
    return f"<dl>{lines}{arrows}</dl>" if lines else ""


def _table(heads: str, lines: str) -> str:
    """Return a table.

    On a phone its lines become cards; on medium widths it scrolls horizontally.
    """
    return (
        f'<div class="wide"><table class="cards"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _reference(protocol: dict[str, Any]) -> str:
    reference = protocol.get("reference", {})
    which = f" ({_text(str(reference['pictures']))})" if "pictures" in reference else ""
    return f"The reference is {reference['count']} real images{which}." if reference else ""


def _published(results: Results) -> str:
    """Return published scores, in a table for each protocol that their authors name.

    They are not ranked, because how they were computed cannot be checked.
    """
    tables = []
    for claim in dict.fromkeys(entry.protocol for entry in results.published):
        entries = [entry for entry in results.published if entry.protocol == claim]
        titles = list(dict.fromkeys(title for entry in entries for title in entry.scores))
        heads = "".join(f"<th>{_text(title)}</th>" for title in titles)
        lines = "".join(_published_line(entry, titles) for entry in entries)
        tables.append(
            f"<div><p>{_text(claim)}:</p><table class='published'>"
            f"<thead><tr><th></th>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
        )
    note = (
        "<p class='note'>Published by others under the protocol they claim; "
        "nothing here is ranked with ours.</p>"
    )
    return f"<div class='claims'>{''.join(tables)}</div>{note}" if tables else ""


def _published_line(entry: Published, titles: Sequence[str]) -> str:
    cells = "".join(
        f"<td>{format(entry.scores[t], 'g') if t in entry.scores else DASH}</td>" for t in titles
    )
    return (
        f'<tr><th scope="row">{_text(entry.model)}<small>{_text(entry.source)}</small></th>'
        f"{cells}</tr>"
    )


def _best(standings: Sequence[Standing], column: Column) -> float | None:
    """Return the best score of a column among models.

    None if the column is not ranked, or if fewer than two models have the score.
    """
    values = [v.mean for s in standings if s.kind == "model" and (v := s.value(column))]
    if not values or column.better == "none" or len(values) < 2:
        return None
    return max(values) if column.better == "higher" else min(values)


def _ranking_line(
    standing: Standing, columns: Sequence[Column], best: dict[Column, float | None]
) -> str:
    cells = []
    for column in columns:
        value = standing.value(column)
        mark = (
            ' class="best"'
            if value and standing.kind == "model" and value.mean == best[column]
            else ""
        )
        label = _text(f"{column.title} {ARROWS[column.better]}")
        missing = "" if value else ' class="missing"'
        cells.append(
            f'<td data-label="{label}"{mark}{missing}><span>{_cell(with_range(value))}</span></td>'
        )
    return (
        f'<tr class="{standing.kind}"><td class="rank">{rank(standing)}</td>'
        f'<th scope="row">{_text(standing.name)}</th>{"".join(cells)}</tr>'
    )


def _cell(text: str) -> str:
    """Return a score with its range below it."""
    score, _, bounds = text.partition(" ")
    return f"{_text(score)}<small>{_text(bounds)}</small>" if bounds else _text(score)


def _images(results: Results) -> str:
    """Return the images of the grid: a block for each caption, in it a strip for each row.

    The strips are below each other on a phone and side by side on a desktop.
    """
    folders = [(REAL, "real")] + [
        entry
        for r in results.rows
        if r.has_images and r.kind == "model"
        for entry in (
            (r.name, r.name),
            (nearest_to(r.name), f"{r.name}: nearest training images"),
        )
    ]
    blocks = []
    for number_, entry in enumerate(results.grid):
        strips = [
            f"<figcaption>{_text(title)}</figcaption>{_strip(images)}"
            for folder, title in folders
            if (images := load_images(results.out, folder, number_))
        ]
        if strips:
            where = f"<span>{_text(entry['set'])}</span>" if entry["set"] else ""
            blocks.append(
                f'<figure class="caption"><p>{_text(entry["caption"])} {where}</p>'
                f'<div class="strips">{"".join(strips)}</div></figure>'
            )
    return f'<div class="captions">{"".join(blocks)}</div>' if blocks else ""


def _strip(images: Sequence[Image.Image]) -> str:
    """Return images side by side."""
    small = "small " if images[0].width < SMALL else ""
    shown = "".join(
        _inline_image(image, f"sample {number}") for number, image in enumerate(images, 1)
    )
    return f'<div class="{small}strip">{shown}</div>'


def _inline_image(image: Image.Image, words: str) -> str:
    """Embed an image: a small one as PNG, which the browser enlarges, others reduced as JPEG."""
    buffer = io.BytesIO()
    if image.width < SMALL:
        image.save(buffer, "PNG", optimize=True)
        return _image("png", buffer.getvalue(), words)
    side = min(LARGEST, image.width)
    image.resize((side, side), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=88, optimize=True
    )
    return _image("jpeg", buffer.getvalue(), words)


def _image(kind: str, data: bytes, words: str) -> str:
    encoded = base64.b64encode(data).decode()
    return f'<img alt="{_text(words)}" src="data:image/{kind};base64,{encoded}">'


def _plot(svg: bytes | None, title: str) -> str:
    if svg is None:
        return ""
    return (
        f"<figure><figcaption>{_text(title)}</figcaption>{_image('svg+xml', svg, title)}</figure>"
    )


def _plots(found: Iterable[str]) -> str:
    html = "".join(found)
    return f'<div class="plots">{html}</div>' if html else ""


def _bars(results: Results, standings: Sequence[Standing]) -> str:
    shown = [s for s in standings if any(s.value(c) for c in results.bars)]
    if not shown:
        return ""
    from t2i.benchmarks.report import plots  # matplotlib takes a second, which training need not

    return _plots([_plot(plots.bars(shown, results.bars), f"Set “{results.bars[0].set}”")])


def _costs(results: Results, standings: Sequence[Standing]) -> str:
    models = [s for s in standings if s.kind == "model"]
    if not models:
        return ""
    from t2i.benchmarks.report import plots

    heads = "".join(f"<th>{_text(title)}</th>" for title, _ in COSTS)
    lines = "".join(
        f'<tr class="model"><th scope="row">{_text(s.name)}</th>'
        + "".join(
            f'<td data-label="{_text(t)}">{_text(cost(t, s.cost(*path)))}</td>' for t, path in COSTS
        )
        + "</tr>"
        for s in models
    )
    axes = [
        ("s/image", "seconds to sample an image"),
        ("parameters", "parameters"),
        ("training", "seconds of training"),
    ]
    drawn = [
        _plot(plots.quality_against(models, results.headline, t, u), f"Quality against {u}")
        for t, u in axes
    ]
    table = _table(f"<th></th>{heads}", lines)
    note = (
        "parameters: all, helper networks of the training included; trained: those that were "
        "trained; arithmetic: convolutions and matrix products of the training, forwards and "
        "backwards; machine: its rate with these alone; images/s: in training; s/image: in "
        "sampling, text encoder included; sampling and scoring: time for all of the row's images."
    )
    told = " ".join(filter(None, [spent_note(results), parts_note(results)]))
    if told:
        note = f"{_text(told)} {note[0].upper()}{note[1:]}"
    return f"{table}<p class='note'>{note}</p>{_plots(drawn)}"


def _curves(rows: Sequence[Row]) -> str:
    from t2i.benchmarks.report import plots

    return _plots(_plot(plots.training_curve(row), row.name) for row in rows if row.kind == "model")


def _protocol(results: Results) -> str:
    """Return the protocol in words and as JSON, with each model's training data and sampler."""
    protocol = results.protocol
    facts = [("hash", results.protocol_hash)]
    facts += [
        (f"captions “{p['name']}”", f"{p['count']} of split '{p['split']}'. {p['about']}")
        for p in protocol["prompts"]
    ]
    facts += [(f"measure “{name}”", _measure(m)) for name, m in protocol["measures"].items()]
    facts += [("images", f"{protocol['image_size']} px; {protocol['pictures']}")]
    facts += [
        ("reference", _settings(protocol["reference"])),
        ("real images", str(protocol["real_images"])),
    ]
    facts += [(f"data of {r.name}", _data(r)) for r in results.rows if "config" in r.training]
    facts += [
        (f"sampler of {r.name}", _settings(r.sampling)) for r in results.rows if r.kind == "model"
    ]
    facts += [("environment", _settings(results.environment))]
    terms = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in facts)
    whole = escape(json.dumps(protocol, indent=2, ensure_ascii=False))
    return (
        f"<dl>{terms}</dl><details><summary>All of it, as JSON</summary>"
        f"<pre>{whole}</pre></details>"
    )


def _data(row: Row) -> str:
    """Describe a model's training data: its settings and its image size."""
    settings = {
        key: value
        for key, value in row.training["config"].get("data", {}).items()
        if key != "image_size"
    }
    return f"{_settings(settings)}, at {row.training['config'].get('image_size')} px"


def _measure(measure: dict[str, object]) -> str:
    """Describe a measure of the protocol, and the weights of its extractor."""
    extractor = measure.get("extractor")
    known = {key: value for key, value in measure.items() if key not in ("extractor", "settings")}
    text = _settings(known)
    if isinstance(extractor, dict):
        text += f"; features {extractor['name']}, weights {str(extractor['weights_sha256'])[:12]}"
    return text


def _settings(settings: dict[str, object]) -> str:
    """Format settings as "key value, key value"; those that are None are left out."""
    shown = {k: number(v) if isinstance(v, float) else v for k, v in settings.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None)
