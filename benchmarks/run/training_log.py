"""The log of a run (RUN/metrics.jsonl) as a curve for the report, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from t2i.benchmarks.figures import TrainingScore
from t2i.core.errors import UserError

_SCORES = TypeAdapter(dict[str, TrainingScore])

LONGEST = 32 * 1024
"""Bytes in the longest line that is read."""

MOST_BYTES = 256 * 2**20
"""Size of the largest log that is read, in bytes."""

MOST_LINES = 3_000_000
"""Number of lines of the longest log that is read."""

LARGEST_LOSS = 1e38
"""Larger losses, beyond float32, are gaps in a curve, as those that are not finite."""

LONGEST_TIME = 1e10
"""Seconds of the longest training."""

SCORES = b'"scores": {'
"""What a line with scores holds."""

REMEDY = "restore the file, or remove it: the report has no curve then"


def read_curve(path: Path, points: int = 300) -> list[dict[str, Any]]:
    """Read a training log, thinned.

    Args:
        path: The file. It need not exist.
        points: About how many lines to keep; fewer than twice as many are returned.

    Returns:
        Every k-th line, each with "stage", "step", "seconds" and "losses" (by name; None: not
        finite), as far as it has them, and the first `points` lines with "scores". A last
        line that a crash cut short is left out.

    Raises:
        UserError: The file cannot be read, is too large, or is no log.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise UserError(f"{path} is no regular file; {REMEDY}")
    try:
        count = _count_lines(path)
        every, found = max(1, count // points), list[dict[str, Any] | None]()
        scored = 0
        with open(path, "rb") as file:
            for number in range(count):
                line = file.readline(LONGEST + 1)
                if len(line) > LONGEST:
                    raise UserError(f"{path}, line {number + 1}: too long; {REMEDY}")
                scores = SCORES in line and scored < points
                scored += scores
                if number % every == 0 or scores:
                    found.append(_entry(line, f"{path}, line {number + 1}"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {REMEDY}") from None
    return [entry for entry in found if entry is not None]


def _count_lines(path: Path) -> int:
    """Count the lines, also a last one without an end."""
    count, size, last = 0, 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(2**20):
            count, size, last = count + block.count(b"\n"), size + len(block), block[-1:]
            if size > MOST_BYTES or count > MOST_LINES:
                raise UserError(
                    f"{path}: larger than {MOST_BYTES // 2**20} MiB, or over {MOST_LINES:,} lines; "
                    f"{REMEDY}"
                )
    return count + (last != b"\n")


def _entry(line: bytes, where: str) -> dict[str, Any] | None:
    """Return what a curve needs of a line; None for a last one that has no end."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        if not line.endswith(b"\n"):
            return None
        raise UserError(f"{where}: no JSON; {REMEDY}") from None
    if not isinstance(document, dict):
        raise UserError(f"{where}: no JSON object; {REMEDY}")
    found: dict[str, Any] = {}
    for name in ("stage", "step", "seconds"):
        value = document.get(name)
        if value is None:
            continue
        sound = (
            isinstance(value, str)
            if name == "stage"
            else isinstance(value, int | float) and 0 <= value <= LONGEST_TIME
        )
        if not sound:
            raise UserError(f"{where}: its '{name}' is wrong; {REMEDY}")
        found[name] = value
    if "scores" in document:
        found["scores"] = _scores(document["scores"], where)
    return {**found, "losses": _losses(document.get("losses", {}), where)}


def _scores(scores: object, where: str) -> dict[str, Any]:
    """Check the scores of a line."""
    try:
        checked = _SCORES.validate_python(scores)
    except ValidationError:
        raise UserError(f"{where}: its 'scores' are no scores by name; {REMEDY}") from None
    return {name: score.model_dump(mode="json") for name, score in checked.items()}


def _losses(losses: object, where: str) -> Mapping[str, float | None]:
    """Check the losses of a line. Those that no float32 can hold become None."""
    if not isinstance(losses, dict):
        raise UserError(f"{where}: its 'losses' are no numbers by name; {REMEDY}")
    found: dict[str, float | None] = {}
    for name, value in losses.items():
        if value is not None and not isinstance(value, int | float):
            raise UserError(f"{where}: a loss is no number; {REMEDY}")
        found[name] = value if value is not None and abs(value) <= LARGEST_LOSS else None
    return found
