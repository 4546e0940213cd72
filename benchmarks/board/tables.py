"""The board's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from t2i.benchmarks.board.members import wanted_models
from t2i.benchmarks.report.markdown import markdown_table
from t2i.benchmarks.report.table import DASH, cost, number, with_range
from t2i.benchmarks.results import VARIETY, Column, Results, Row, Standing
from t2i.core.registry.specs import ModelSpec
from t2i.core.registry.tables import registry

ONE, KINDS, UNSEEN = "one object", "all kinds", "compositions"
"""Caption sets of the benchmark `shapes`."""


def accuracy(where: str, attribute: str, title: str) -> Column:
    """Return the column of an attribute of captions.

    Args:
        where: The caption set.
        attribute: The attribute, or "all".
        title: Heading.

    Returns:
        The column.
    """
    return Column(where, "caption-accuracy", attribute, title, "higher")


HEADLINE = accuracy(ONE, "all", "all right %")
QUALITY = (
    accuracy(UNSEEN, "all", "unseen %"),
    accuracy(KINDS, "all", "all kinds %"),
    Column(ONE, "fid", "fid", "FD", "lower"),
    Column(VARIETY, "diversity", "diversity", "diversity %", "none"),
    Column(ONE, "bits-per-dim", "bits_per_dim", "bits/dim", "lower"),
)
ATTRIBUTES = tuple(
    accuracy(ONE, name, name) for name in ("shape", "colour", "size", "position", "count")
)
NUMBERS = (
    accuracy(KINDS, "one.all", "one object"),
    accuracy(KINDS, "two.all", "two"),
    accuracy(KINDS, "three.all", "three"),
    accuracy(KINDS, "count.all", "several alike"),
)
COSTS = (
    ("s/image", "s/image", ("sampling", "seconds_per_image")),
    ("an image", "arithmetic", ("sampling", "operations")),
    ("training", "arithmetic", ("training", "operations", "total")),
    ("steps", "steps", ("training", "steps")),
    ("parameters", "parameters", ("training", "parameters", "all")),
    ("memory", "memory", ("training", "peak_memory_bytes")),
)
"""Costs: heading, the title that `report.table.cost` formats it by, and path in a row."""


def spec_of(standing: Standing) -> ModelSpec:
    """Return the specification of a model on the board.

    Args:
        standing: Its line of the ranking.

    Returns:
        The specification.
    """
    return registry().models[standing.rows[0].model]


def quality(results: Results, columns: Sequence[Column] = QUALITY) -> str:
    """Write the table of scores and costs, the best model first.

    Args:
        results: The board's rows.
        columns: Its columns after the headline score.

    Returns:
        Markdown.
    """
    heads = ["", "model", "family", results.headline.title, *(c.title for c in columns)]
    lines = _quality_lines(results, columns)
    return markdown_table([[*heads, *(head for head, _, _ in COSTS)], *lines])


def _quality_lines(results: Results, columns: Sequence[Column]) -> Iterator[list[str]]:
    for standing in results.ranking():
        if standing.kind == "floor":
            continue
        scores = [_short(standing, column) for column in columns]
        costs = [cost(title, standing.cost(*path)) for _, title, path in COSTS]
        if standing.kind == "real":
            name = ["", "real images", ""]
        else:
            name = [standing.place, linked(standing.name), spec_of(standing).family]
        yield [*name, f"**{with_range(standing.value(results.headline))}**", *scores, *costs]


def attributes(results: Results) -> str:
    """Write the table of accuracy by attribute, with intervals.

    Args:
        results: The board's rows.

    Returns:
        Markdown.
    """
    heads = ["model", *(c.title for c in ATTRIBUTES), "unseen: all", "all kinds: all"]
    return markdown_table([heads, *_in_full(results, (*ATTRIBUTES, *QUALITY[:2]))])


def numbers(results: Results) -> str:
    """Write the table of accuracy by number of objects, with intervals.

    Args:
        results: The board's rows.

    Returns:
        Markdown.
    """
    heads = ["model", *(c.title for c in NUMBERS)]
    return markdown_table([heads, *_in_full(results, NUMBERS)])


def _in_full(results: Results, columns: Sequence[Column]) -> Iterator[list[str]]:
    """Write the lines of models, with the intervals of each score."""
    for standing in models(results):
        yield [standing.name, *(with_range(standing.value(column)) for column in columns)]


def origins(results: Results) -> str:
    """Write the table of what made each row.

    Args:
        results: The board's rows.

    Returns:
        Markdown.
    """
    lines = (
        [row.name, f"`{command(row.model, len(s.rows))}`", made(row), "; ".join(row.warnings)]
        for s in models(results)
        for row in s.rows
    )
    return markdown_table([["model", "command", "date", "flags"], *lines])


def missing(results: Results) -> str:
    """Name the models that have no row yet.

    Args:
        results: The board's rows.

    Returns:
        A sentence.
    """
    there = {standing.rows[0].model for standing in models(results)}
    names = [f"`{name}`" for name in wanted_models() if name not in there]
    return f"Without a row yet: {', '.join(names) or 'none'}."


def protocol(results: Results) -> str:
    """Write the protocol of the rows, and the captions of their images.

    Args:
        results: The board's rows.

    Returns:
        Two paragraphs.
    """
    captions = "; ".join(f"({n}) {entry['caption']}" for n, entry in enumerate(results.grid, 1))
    return f"Protocol `{results.protocol_hash}`.\n\nCaptions, from left to right: {captions}."


PARTS: Mapping[str, Callable[[Results], str]] = {
    "quality": quality, "missing": missing, "attributes": attributes, "numbers": numbers,
    "origins": origins, "protocol": protocol,
}  # fmt: skip
"""The parts of docs/board.md that show the rows of `shapes`, and what writes each."""


def made(row: Row) -> str:
    """Write when a row was made.

    Args:
        row: The row.

    Returns:
        The date.
    """
    return str(row.training.get("made", {}).get("created", ""))[:10]


def command(model: str, seeds: int) -> str:
    """Write the command that makes a model's rows.

    Args:
        model: Name of the model.
        seeds: Number of its rows.

    Returns:
        The command.
    """
    several = f" --seeds {seeds}" if seeds > 1 else ""
    return f"python -m t2i.benchmarks.board --models {model}{several}"


def models(results: Results) -> list[Standing]:
    """List the models of a ranking.

    Args:
        results: The board's rows.

    Returns:
        Their lines, the best first.
    """
    return [standing for standing in results.ranking() if standing.kind == "model"]


def linked(name: str, to: str = "../") -> str:
    """Write a model's name with a link to its page.

    Args:
        name: Its registered name.
        to: Path of the repository's root, seen from the document.

    Returns:
        Markdown.
    """
    folder = registry().models.origin(name).plugin
    return f"[{name}]({to}plugins/models/{folder}/README.md)"


def _short(standing: Standing, column: Column) -> str:
    """Write a score without its interval."""
    value = standing.value(column)
    return number(value.mean) if value else DASH
