"""Warnings of captions that a model does not read as they are: unknown words, and cut ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t2i.core.interfaces.text import Reading, TextEncoder, unique
from t2i.core.runs.folder import Run

NAMED = 8
"""Largest number of unknown words that a warning names."""

SHOWN = 60
"""Largest number of characters of a caption that a warning shows."""


def warnings_of(
    encoder: TextEncoder, captions: Sequence[str], examples: Sequence[str] = ()
) -> list[str]:
    """Say what a text encoder does not read of some captions.

    Args:
        encoder: The text encoder of a model.
        captions: The captions. Each is looked at once.
        examples: Captions that the model was trained on. Empty: unknown.

    Returns:
        One sentence for each kind of trouble: empty captions, unknown words, cut ends.
    """
    captions = unique(captions)
    readings = {text: encoder.reading(text) for text in captions if text.strip()}
    known = {text: reading for text, reading in readings.items() if reading is not None}
    if known and all(reading.limit == 0 for reading in known.values()):
        return ["this model reads no captions: what they say has no effect"]
    told = [_unknown(known, examples), _cut(known)]
    if len(readings) < len(captions):
        told.insert(0, "an empty caption: its images are of anything (unconditional)")
    return [sentence for sentence in told if sentence]


def _unknown(readings: dict[str, Reading], examples: Sequence[str]) -> str:
    found = {text: reading for text, reading in readings.items() if reading.unknown}
    if not found:
        return ""
    text, first = next(iter(found.items()))
    names = unique(word for reading in found.values() for word in reading.unknown)
    count = sum(len(reading.unknown) for reading in found.values())
    if len(found) == 1:
        where = f"{count} of {first.total} {first.unit} of {_short(text)} are"
    else:
        where = f"{count} {first.unit} of {len(found)} captions, such as {_short(text)}, are"
    more = ", ..." if len(names) > NAMED else ""
    like = ", ".join(_short(example) for example in examples)
    trained = f"; it was trained on captions such as {like}" if like else ""
    return f"{where} unknown to this model: {', '.join(names[:NAMED])}{more}{trained}"


def _cut(readings: dict[str, Reading]) -> str:
    found = {
        text: reading
        for text, reading in readings.items()
        if reading.limit is not None and reading.total > reading.limit
    }
    if not found:
        return ""
    text, first = next(iter(found.items()))
    which = f"{_short(text)} is" if len(found) == 1 else f"{len(found)} captions are"
    length = f"of its {first.total} {first.unit} " if len(found) == 1 else ""
    return f"{which} cut: {length}this model reads the first {first.limit} {first.unit}"


def _short(text: str) -> str:
    return f"'{text}'" if len(text) <= SHOWN else f"'{text[: SHOWN - 3]}...'"


def example_captions(run: Path, count: int = 2) -> list[str]:
    """Read captions that a run was trained with, from the list beside its grids of samples.

    Args:
        run: The run's folder, its folder `model`, or a checkpoint of it.
        count: How many.

    Returns:
        The captions; empty if there is no list.
    """
    for folder in (run, *run.absolute().parents[:2]):
        if captions := unique(text for text in Run(folder).captions() if text.strip()):
            return captions[:count]
    return []
