"""The documents that show the board: docs/board.md, the README, and the page of each model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from t2i.benchmarks.board import figures, tables
from t2i.benchmarks.board.pictures import images, quality_by_cost
from t2i.benchmarks.board.sections import Section
from t2i.benchmarks.report.markdown import filled, markdown_table
from t2i.benchmarks.report.table import with_range
from t2i.benchmarks.results import Results, Standing, Value
from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes
from t2i.core.io.images import png
from t2i.core.registry.specs import ModelSpec
from t2i.core.registry.tables import registry

PAGE = Path("docs/board.md")
"""The board's page, seen from the repository's root."""


def check_place(root: Path, section: Section) -> None:
    """Check that the board's page has a place for a section, before anything is trained for it.

    Args:
        root: The repository's root.
        section: The section.

    Raises:
        UserError: There is no page, or it lacks the comments between which the section is written.
    """
    page = root / PAGE
    if not page.is_file():
        raise UserError(f"{root}: no clone of the repository (it has no {PAGE}): go there")
    for name in [section.name] if section.name else tables.PARTS:
        filled(page.read_text("utf-8"), name, "", str(page))


def write_pages(root: Path, results: Results) -> None:
    """Write every document and picture that shows the board.

    Args:
        root: The repository's root.
        results: The board's rows.

    Raises:
        UserError: A document lacks the comments between which a part of it is written.
    """
    write_figures(root, results)
    write_bytes(root / "docs" / "board.png", png(images(results)))
    write_bytes(root / "docs" / "board.svg", quality_by_cost(results))
    page = root / PAGE
    for name, written in tables.PARTS.items():
        _fill(page, name, written(results))
    _fill(root / "README.md", "board", _list(results))
    for standing in tables.models(results):
        spec = registry().models.origin(standing.rows[0].model).plugin
        _fill(root / "plugins" / "models" / spec / "README.md", standing.name, _line(standing))


def write_section(root: Path, section: Section, results: Results) -> None:
    """Write the section of a folder of pictures, and its picture.

    Args:
        root: The repository's root.
        section: The section.
        results: Its rows.

    Raises:
        UserError: docs/board.md lacks the comments between which the section is written.
    """
    picture = f"board-{section.name}.png"
    write_bytes(root / "docs" / picture, png(images(results)))
    columns = [column for column in results.columns if column != results.headline]
    title = f"![Images of the models for captions of {section.name}]({picture})"
    parts = (tables.quality(results, columns), title, tables.protocol(results))
    _fill(root / PAGE, section.name, "\n\n".join(parts))


def write_figures(root: Path, results: Results) -> None:
    """Write the figures that the package carries.

    Args:
        root: The repository's root.
        results: The board's rows.
    """
    found = {s.rows[0].model: s.value(tables.HEADLINE) for s in tables.models(results)}
    rounded = {
        model: [round(n, 2) for n in _ends(value)]
        for model, value in sorted(found.items())
        if value
    }
    lines = ",\n".join(f" {json.dumps(model)}: {json.dumps(n)}" for model, n in rounded.items())
    path = root / "benchmarks" / "board" / figures.FILE.name
    write_bytes(path, f"{{\n{lines}\n}}\n".encode())


def _ends(value: Value) -> tuple[float, float, float]:
    """Return a score with the ends of its range; the score itself where there is none."""
    low = value.mean if value.low is None else value.low
    return value.mean, low, value.mean if value.high is None else value.high


def _fill(page: Path, name: str, text: str) -> None:
    """Write a part of a document anew."""
    write_bytes(page, filled(page.read_text("utf-8"), name, text, str(page)).encode())


def _line(standing: Standing) -> str:
    """Write a model's score, for its own page."""
    value, seeds = with_range(standing.value(tables.HEADLINE)), len(standing.rows)
    trained = ", after twenty minutes of one core"
    if not any(row.training.get("steps") for row in standing.rows):
        trained = ". Nothing is trained"
    several = "" if seeds == 1 else f" (mean, lowest and highest of {seeds} trainings)"
    return (
        f"On [the board](../../../docs/board.md), `{standing.name}` gets {value} % of the "
        f"one-object captions all right{trained}{several}."
    )


def _list(results: Results) -> str:
    """Write the README's list of models: the best first, those without a row last."""
    standings = {s.rows[0].model: s for s in tables.models(results)}
    others = [spec for spec in registry().models if spec.name not in standings]
    heads = ["model", "family", "what it is", "paper", "all right %"]
    return markdown_table([heads, *_list_lines(standings, others)])


def _list_lines(standings: dict[str, Standing], others: list[ModelSpec]) -> Iterator[list[str]]:
    for spec in [*(registry().models[name] for name in standings), *others]:
        standing = standings.get(spec.name)
        score = with_range(standing.value(tables.HEADLINE)) if standing else ""
        yield [tables.linked(spec.name, ""), spec.family, spec.summary, _paper(spec), score]


def _paper(spec: ModelSpec) -> str:
    """Cite a model's paper, with a link to arXiv where it has one."""
    if not spec.arxiv:
        return spec.cited
    return f"[{spec.cited}](https://arxiv.org/abs/{spec.arxiv})"
