"""`t2i settings` and `t2i cite`: what the settings of a thing do, and the papers behind it."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import click

from t2i.cli.command import Command, json_option, registered
from t2i.cli.output import answer, answer_json, answer_table, note
from t2i.core.errors import UserError
from t2i.core.registry.tables import HOST, registry


@click.command(cls=Command)
@click.argument("name", shell_complete=registered("models", "samplers", "encoders", "datasets"))
@click.option(
    "--preset", "presets", multiple=True, metavar="P", help="Show this preset only; repeatable."
)
@click.option("--kind", metavar="KIND", help="What NAME is, where several things have the name.")
@json_option
def settings(name: str, presets: tuple[str, ...], kind: str | None, as_json: bool) -> None:
    """Show the settings of NAME: what each one does, and its value in each preset.

    NAME is a model, or a sampler, text encoder, data set, feature extractor, metric or benchmark.

    \b
    t2i settings ldm
    t2i settings ldm --preset tiny
    t2i settings ddim --kind sampler
    """
    from t2i.core.runs.settings_table import kinds_of, settings_of

    kinds = kinds_of(name)
    words = {registry().table(one).singular: one for one in kinds}
    if kind is not None and kind not in words and kind not in kinds:
        raise UserError(f"--kind {kind}: '{name}' is a {' and a '.join(words)}")
    chosen = words.get(kind, kind) if kind else kinds[0]
    assert chosen is not None
    for word, other in words.items():
        if kind is None and other != chosen:
            note(f"'{name}' is also a {word}: t2i settings {name} --kind {word}")
    rows = settings_of(chosen, name, presets)
    if as_json:
        answer_json([
            {"name": row.name, "about": row.about, "values": dict(row.values)} for row in rows
        ])  # fmt: skip
        return
    columns = list(rows[0].values) if rows else []
    table = [[row.name, *(_value(row.values[c]) for c in columns), row.summary] for row in rows]
    answer_table(["setting", *columns, "what it does"], table)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


WIDEST = 40
"""Characters of a value in the table; --json has all of it."""


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=registered("models"))
def cite(names: tuple[str, ...]) -> None:
    """Print BibTeX of the papers behind each NAME; without a NAME, that of t2i itself.

    \b
    t2i cite ldm ddim > references.bib
    """
    from t2i.core.runs.citations import PROJECT, citations

    found = [] if names else [PROJECT % version(HOST)]
    for name in names:  # an unknown name is an error before anything is printed
        entries = citations(name)
        found += entries
        if not entries:
            note(f"'{name}' has no references")
    for entry in dict.fromkeys(found):
        answer(f"{entry}\n")
