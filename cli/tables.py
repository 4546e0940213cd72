"""`t2i models` and its like: what is installed, from the light specifications alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from t2i.cli.command import Command, json_option
from t2i.cli.output import answer_json, answer_table
from t2i.core.registry.specs import Named
from t2i.core.registry.tables import registry

FIELDS: dict[str, tuple[str, ...]] = {
    "models": ("family", "presets", "paper"),
    "families": ("generator",),
    "samplers": ("families",),
    "encoders": (),
    "datasets": ("splits", "needs_dir"),
    "features": (),
    "metrics": (),
    "benchmarks": ("protocols",),
}
"""Kind of thing -> what its specifications say beside name and summary."""

ONLY_JSON = ("paper", "needs_dir", "generator")


def _row(kind: str, spec: Named) -> dict[str, Any]:
    origin = registry().table(kind).origin(spec.name)
    fields = {name: getattr(spec, name) for name in FIELDS[kind]}
    place = {
        "plugin": origin.plugin,
        "distribution": origin.distribution,
        "version": origin.version,
    }
    return {"name": spec.name, "summary": spec.summary, **fields, **place}


def _text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _listing(kind: str, what: str) -> click.Command:
    """The command that lists one kind of thing."""

    def show(as_json: bool) -> None:
        rows = [_row(kind, spec) for spec in registry().table(kind)]
        if as_json:
            answer_json(rows)
            return
        shown = [
            "name",
            *(name for name in FIELDS[kind] if name not in ONLY_JSON),
            "distribution",
            "summary",
        ]
        answer_table(shown, [[_text(row[name]) for name in shown] for row in rows])

    return click.command(kind, cls=Command, help=f"List {what}.")(json_option(show))


models = _listing("models", "the models: family, presets, where each comes from")
families = _listing("families", "the families of models: what fixes how a generator is called")
samplers = _listing("samplers", "the samplers, with the families of models that each draws from")
encoders = _listing("encoders", "the text encoders")
datasets = _listing("datasets", "the data sets and their splits")
features = _listing("features", "the feature extractors that metrics use")
metrics = _listing("metrics", "the metrics")
benchmarks = _listing("benchmarks", "the benchmarks and their protocols, the default first")
