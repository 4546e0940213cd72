"""The tables of a file of measurements, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i.benchmarks.gpu.plan import SAMPLING, THESIS_SECONDS, WAYS
from t2i.benchmarks.report.markdown import markdown_table

Rows = Sequence[Mapping[str, Any]]


def tables(rows: Rows) -> str:
    """Write the tables of measurements.

    Args:
        rows: The measurements, each with `model`, `preset`, `way` and its result.

    Returns:
        Markdown: training by preset and way, then sampling.
    """
    devices = sorted({row["device"] for row in rows if "device" in row})
    parts = [f"Measured on: {', '.join(devices) or 'nothing'}."]
    trained = [row for row in rows if row["way"] in WAYS]
    if trained:
        parts.append(_training(trained))
    if sampled := [row for row in rows if row["way"] == SAMPLING]:
        parts.append(_sampling(sampled))
    return "\n\n".join(parts)


def _training(rows: Rows) -> str:
    pairs = dict.fromkeys((row["model"], row["preset"]) for row in rows)
    found = {(row["model"], row["preset"], row["way"]): row for row in rows}
    ways = [way for way in WAYS if any(row["way"] == way for row in rows)]
    lines = [("model", "preset", "M trained", "batch", *(f"{way}: images/s, GB" for way in ways))]
    for model, preset in pairs:
        own = [found.get((model, preset, way)) for way in ways]
        sound = next((row for row in own if row and "error" not in row), {})
        lines.append((
            model, preset, f"{sound['parameters'] / 1e6:.1f}" if sound else "",
            str(sound.get("batch", "")), *map(_cell, own),
        ))  # fmt: skip
    return markdown_table(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not measured"
    if "error" in row:
        return _plain(row["error"])
    return f"{row['images_per_second']:.3g}, {row['gb']:.2f}"


def _sampling(rows: Rows) -> str:
    lines = [("model", "preset", "s an image", "GB", "s an image in the thesis")]
    for row in rows:
        thesis = THESIS_SECONDS.get(row["model"])
        known = f"{thesis:g}" if thesis is not None else ""
        if "error" in row:
            lines.append((row["model"], row["preset"], _plain(row["error"]), "", known))
        else:
            seconds = f"{row['seconds_per_image']:.3g}"
            lines.append((row["model"], row["preset"], seconds, f"{row['gb']:.2f}", known))
    return markdown_table(lines)


def _plain(text: str) -> str:
    return text.replace("|", "/")[:80]
