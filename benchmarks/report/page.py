"""The report, report.html: one file without external resources.

It is laid out for phones, desktops and print, in light and dark. Its one script sorts tables and
compares images; the page says the same without it. A content security policy allows that script by
its hash, and nothing else that runs or is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from t2i.benchmarks.report.columns import explained, heading
from t2i.benchmarks.report.export import protocol_lines
from t2i.benchmarks.report.facts import budget_text, protocol_facts, row_facts
from t2i.benchmarks.report.images import images_section, runs_section
from t2i.benchmarks.report.markup import table, terms, text
from t2i.benchmarks.report.sheets import (
    attributes_sheet,
    costs_sheet,
    published_sheets,
    ranking_sheet,
)
from t2i.benchmarks.report.table import (
    brackets_note,
    likelihood_note,
    parts_note,
    spent_note,
    with_range,
)
from t2i.benchmarks.results import VARIETY, Results, Row, Standing
from t2i.core.io.files import write_bytes

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
NAMED = 8  # models in the sentence at the top
MOST_SCORES = 6  # plots of scores while training


def write_report(results: Results) -> Path:
    """Write the report of a benchmark.

    Args:
        results: The results. Images of the grid are read from `results.out`.

    Returns:
        The file, `results.report`.
    """
    write_bytes(results.report, render(results).encode(errors="backslashreplace"))
    return results.report


def render(results: Results) -> str:
    """Render the report.

    Args:
        results: The results. Images of the grid are read from `results.out`.

    Returns:
        The page, HTML. Sections without content are left out.
    """
    title = f"t2i bench {results.benchmark}"
    standings, remarks = results.ranking(), protocol_lines(results)
    sections = [
        ("Ranking", _ranking(results, standings, remarks)),
        ("Published elsewhere", _published(results, remarks)),
        ("Same captions, same noise", images_section(results)),
        ("Sample more", runs_section(results, standings)),
        ("Right by attribute", _bars(results, standings, remarks)),
        ("Cost", _costs(results, standings, remarks)),
        ("Training", _curves(results.rows)),
        ("Protocol", _protocol(results)),
    ]
    body = "".join(
        f"<section><h2>{text(name)}</h2>{html}</section>" for name, html in sections if html
    )
    script = SCRIPT.read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE.read_text('utf-8')}</style></head><body>"
        f"<header><h1>{text(title)}</h1>{_verdict(results, standings)}</header>{body}"
        f"<footer>{text(results.created)} · {text(results.command or 't2i')}</footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _policy(script: str) -> str:
    """Return the content security policy that allows one script, styles and embedded images."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _verdict(results: Results, standings: Sequence[Standing]) -> str:
    """Return the headline scores in one sentence, and the training budget in another."""
    column = results.headline
    found = [(s, v) for s in standings if s.rank and (v := s.value(column))]
    scores = ", ".join(
        f"#{text(s.place)} <b>{text(s.name)}</b> {text(with_range(v))}" for s, v in found[:NAMED]
    )
    scores += f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    where = "the samples of one caption" if column.set == VARIETY else f"captions of “{column.set}”"
    return (
        f'<p class="verdict">{text(heading(column, results.protocol))} on {text(where)}: '
        f"{scores or 'no model was scored'}.</p><p>{text(budget_text(results))}</p>"
    )


def _ranking(results: Results, standings: Sequence[Standing], remarks: Sequence[str]) -> str:
    """Return the table of scores, the warnings and the notes below it."""
    warnings = [
        f"<li><b>{text(row.name)}</b>: {text(warning)}</li>"
        for row in results.rows
        for warning in row.warnings
    ]
    given = [s.name for s in standings if any(row.training.get("given") for row in s.rows)]
    notes = [
        f"{brackets_note(standings, results.columns)}Grey rows are not models: the first is the "
        f"ceiling ({results.protocol.get('real_images')}), the last the floor.",
        _ties(standings),
        f"Not trained within the budget, but given as a run: {', '.join(given)}." if given else "",
        _reference(results.protocol),
        likelihood_note(results),
        *(f"Left out: {name} ({reason})." for name, reason in results.left_out.items()),
    ]
    flags = f'<ul class="flags">{"".join(warnings)}</ul>' if warnings else ""
    below = f"<p class='note'>{' '.join(text(note) for note in notes if note)}</p>"
    scores = table(ranking_sheet(results, standings), remarks)
    return f"{scores}{flags}{_explained(results)}{below}"


def _ties(standings: Sequence[Standing]) -> str:
    """Say what a shared rank means, if there is one."""
    ranks = [standing.rank for standing in standings if standing.rank]
    shared = len(set(ranks)) < len(ranks)
    return "Models of one rank are not told apart: their intervals overlap." if shared else ""


def _explained(results: Results) -> str:
    """Say what the columns of the ranking measure, and how to read them."""
    facts = [
        ("; ".join(entry.titles), f"{entry.what}. {entry.reading}".strip())
        for entry in explained(results.columns, results.protocol)
    ]
    arrows = ("↑ ↓", "Higher is better; lower is better.")
    return terms([*facts, arrows]) if facts else ""


def _reference(protocol: dict[str, Any]) -> str:
    reference = protocol.get("reference", {})
    which = f" ({reference['pictures']})" if "pictures" in reference else ""
    return f"The reference is {reference['count']} real images{which}." if reference else ""


def _published(results: Results, remarks: Sequence[str]) -> str:
    """Return published scores, in a table for each protocol that their authors name."""
    tables = [
        f"<div><p>{text(sheet.title)}:</p>{table(sheet, remarks[:1], 'published')}</div>"
        for sheet in published_sheets(results)
    ]
    note = (
        "<p class='note'>Published by others under the protocol they claim; "
        "nothing here is ranked with ours.</p>"
    )
    return f"<div class='claims'>{''.join(tables)}</div>{note}" if tables else ""


def _plot(svg: bytes | None, title: str) -> str:
    from t2i.benchmarks.report.canvas import inline

    if svg is None:
        return ""
    return (
        f'<figure><figcaption>{text(title)}</figcaption><div role="img" aria-label="{text(title)}">'
        f"{inline(svg)}</div></figure>"
    )


def _plots(found: Iterable[str]) -> str:
    html = "".join(found)
    return f'<div class="plots">{html}</div>' if html else ""


def _bars(results: Results, standings: Sequence[Standing], remarks: Sequence[str]) -> str:
    """Return the scores by attribute: as bars unless there are too many, and as a table."""
    sheet = attributes_sheet(results, standings)
    if not sheet.lines:
        return ""
    from t2i.benchmarks.report import plots  # matplotlib takes a second, which training need not

    shown = [s for s in standings if any(s.value(column) for column in results.bars)]
    few = len(shown) <= plots.MOST_LINES
    drawn = [_plot(plots.bars(shown, results.bars), f"Set “{results.bars[0].set}”")] if few else []
    return f"{_plots(drawn)}{table(sheet, remarks)}"


def _costs(results: Results, standings: Sequence[Standing], remarks: Sequence[str]) -> str:
    models = [s for s in standings if s.kind == "model"]
    if not models:
        return ""
    from t2i.benchmarks.report import plots

    axes = [
        ("s/image", "seconds to sample an image"),
        ("parameters", "parameters"),
        ("training", "seconds of training"),
    ]
    drawn = [
        _plot(plots.quality_against(models, results.headline, t, u), f"Quality against {u}")
        for t, u in axes
    ]
    note = (
        "Parameters: all, helper networks of the training included; trained: those that were "
        "trained; arithmetic: convolutions and matrix products of the training, forwards and "
        "backwards; machine: its rate with these alone; images/s: in training; s/image: in "
        "sampling, text encoder included; sampling and scoring: time for all of the row's images."
    )
    told = " ".join(filter(None, [spent_note(results), parts_note(results), note]))
    costs = table(costs_sheet(standings), remarks)
    return f"{costs}<p class='note'>{text(told)}</p>{_plots(drawn)}"


def _curves(rows: Sequence[Row]) -> str:
    from t2i.benchmarks.report import plots

    models = [row for row in rows if row.kind == "model"]
    scores = list(plots.scores(models).items())[:MOST_SCORES]
    drawn = [_plot(plots.score_bands(own, title), title) for title, own in scores]
    return _plots([*drawn, *(_plot(plots.training_curve(row), row.name) for row in models)])


def _protocol(results: Results) -> str:
    """Return the protocol in words and as JSON, with each model's training data and sampler."""
    whole = escape(json.dumps(results.protocol, indent=2, ensure_ascii=False))
    return (
        f"{terms([*protocol_facts(results), *row_facts(results)])}"
        f"<details><summary>All of it, as JSON</summary><pre>{whole}</pre></details>"
    )
