"""`t2i info RUN`: what a run is, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.cli.output import answer, answer_json, answer_table
from t2i.core.io.terminal import printable

PLAIN = ("run", "model folder", "folder", "file", "state", "model", "preset", "what", "sampler",
         "steps", "images", "skipped", "device", "precision", "command", "created")  # fmt: skip
"""Facts that are one value."""


def show_about(text: str, as_json: bool) -> None:
    """Print what a run, or another project's folder or file, is.

    Args:
        text: What `--run` takes.
        as_json: Whether to print JSON.
    """
    from t2i.core.models.describing import about

    facts = about(text)
    if as_json:
        answer_json(facts)
        return
    commands = facts.pop("next", {})
    answer_table(["what", "", "value"], [row for fact in facts.items() for row in _rows(*fact)])
    for name, command in commands.items():
        answer(printable(f"{name}: {command}"))


def _rows(name: str, value: Any) -> list[list[str]]:
    """The rows of one fact: the name stands in the first of them only."""
    from t2i.core.io.terminal import duration

    if name in PLAIN:
        return [[name, "", str(value)]]
    if name in ("seconds", "wall_seconds"):
        return [["time", "training" if name == "seconds" else "in all", duration(value)]]
    if name == "captions":
        return _under(name, [("", caption) for caption in value])
    if name == "stages":
        stages = [(stage["name"], f"{stage['steps']} steps") for stage in value]
        return _under(name, stages)
    if name == "versions":
        return _under(name, [(key, value[key]) for key in ("t2i-zoo", "torch") if key in value])
    if name == "data":
        return _under(name, _data(value))
    if isinstance(value, Mapping):
        return _under(name, [(key, _text(inner)) for key, inner in value.items()])
    return [[name, "", _text(value)]]


def _under(name: str, pairs: list[tuple[str, str]]) -> list[list[str]]:
    return [[name if i == 0 else "", key, text] for i, (key, text) in enumerate(pairs)]


def _data(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (key, _text(value)) for key, value in data.items() if key not in ("splits", "fingerprint")
    ]
    for split, facts in data.get("splits", {}).items():
        rows += [(f"{split}: found", line) for line in facts.get("found", [])]
        passed = facts.get("passed_over", {}).items()
        rows += [(f"{split}: passed over", f"{count} {reason}") for reason, count in passed]
    if "fingerprint" in data:
        rows.append(("fingerprint", data["fingerprint"][:12]))
    return rows


def _text(value: Any) -> str:
    """Format a value: numbers short, lists with commas."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
