"""`t2i models` and its like: what is installed, from the light specifications alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from t2i.cli.command import Command, json_option
from t2i.cli.output import answer_json, answer_table
from t2i.core.registry.specs import Named
from t2i.core.registry.tables import registry

FIELDS: dict[str, tuple[str, ...]] = {
    "models": ("family", "year", "cited", "arxiv", "board", "paper", "presets"),
    "families": ("generator",),
    "samplers": ("families",),
    "encoders": (),
    "datasets": ("splits", "needs_dir"),
    "features": (),
    "metrics": (),
    "benchmarks": ("protocols",),
}
"""Kind of thing -> what its specifications say beside name and summary."""

ONLY_JSON = {
    "models": ("paper", "presets", "distribution"),
    "families": ("generator",),
    "datasets": ("needs_dir",),
}
"""What is in JSON alone, by kind: there is no room for it beside the rest."""


def _row(kind: str, spec: Named) -> dict[str, Any]:
    origin = registry().table(kind).origin(spec.name)
    fields = {name: _field(spec, name) for name in FIELDS[kind]}
    place = {
        "plugin": origin.plugin,
        "distribution": origin.distribution,
        "version": origin.version,
    }
    return {"name": spec.name, "summary": spec.summary, **fields, **place}


def _field(spec: Named, name: str) -> Any:
    """Return a field of a specification, or a model's score on the board."""
    if name != "board":
        return getattr(spec, name)
    from t2i.benchmarks.board.figures import figures

    figure = figures().get(spec.name)
    return figure and figure._asdict()


def _text(value: Any) -> str:
    """Write a field for the table."""
    if isinstance(value, Mapping):
        return f"{value['all_right']:.1f} %"
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return "" if value is None else str(value)


def _listing(kind: str, what: str) -> click.Command:
    """The command that lists one kind of thing."""

    def show(as_json: bool) -> None:
        rows = [_row(kind, spec) for spec in registry().table(kind)]
        if as_json:
            answer_json(rows)
            return
        hidden = ONLY_JSON.get(kind, ())
        shown = [
            "name",
            *(name for name in (*FIELDS[kind], "distribution") if name not in hidden),
            "summary",
        ]
        answer_table(shown, [[_text(row[name]) for name in shown] for row in rows])

    return click.command(kind, cls=Command, help=f"List {what}.")(json_option(show))


models = _listing(
    "models",
    "the models: family, year, paper, and the share of captions that each has right on the board",
)
families = _listing("families", "the families of models: what fixes how a generator is called")
samplers = _listing("samplers", "the samplers, with the families of models that each draws from")
encoders = _listing("encoders", "the text encoders")
datasets = _listing("datasets", "the data sets and their splits")
features = _listing("features", "the feature extractors that metrics use")
metrics = _listing("metrics", "the metrics")
benchmarks = _listing("benchmarks", "the benchmarks and their protocols, the default first")
