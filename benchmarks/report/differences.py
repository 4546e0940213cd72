"""Differences between two results in words: no hashes, no nested values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HASH = re.compile(r"(?:[0-9a-f]{12,}|(?<![a-z])[a-z]+-v?\d+-[0-9a-f]{8,})")
"""What a hash or fingerprint looks like."""

LONGEST = 60
"""Characters of a value that are told."""

NAMES = {
    "protocol.benchmark": "benchmark", "protocol.protocol": "protocol",
    "protocol.dataset.name": "data set", "protocol.image_size": "image size",
    "protocol.samples_per_caption": "images of each caption",
    "protocol.variety.captions": "captions with many images each",
    "protocol.variety.samples": "images of each of the captions with many",
    "protocol.sampling_seed": "seed of sampling", "protocol.reference.split": "reference split",
    "protocol.reference.count": "reference images",
    "protocol.reference.fingerprint": "what the reference images show",
    "protocol.training.count": "training images that are compared with",
    "protocol.training.fingerprint": "what the training images show",
    "protocol.torch_fidelity": "version of torch-fidelity",
    "budget.minutes": "minutes of training", "budget.steps": "steps of training",
    "budget.jobs": "trainings at once",
}  # fmt: skip
"""What fields are called in words, by their paths."""

OF_SETS = {
    "count": "captions", "captions_sha256": "texts of the captions",
    "fingerprint": "images of the captions", "about": "description of the captions",
    "select": "choice of the captions", "split": "split of the captions",
    "headline": "headline set",
}  # fmt: skip
"""What the fields of a caption set are called."""


@dataclass(frozen=True)
class Field:
    """A field that differs between two results A and B.

    Args:
        name: Path of the field, with dots, from "protocol", "budget", "left_out", "environment" or
            "rows" on.
        a: Its value in A; None if A lacks it.
        b: Its value in B; None if B lacks it.
    """

    name: str
    a: Any
    b: Any


def in_words(fields: Iterable[Field]) -> Iterator[str]:
    """Say what differs.

    Args:
        fields: The fields that differ.

    Yields:
        A few words for each field, such as "captions differ: 400 and 8". Values that say nothing to
        a reader (hashes, lists, nested values) are left out.
    """
    fields = tuple(fields)
    counts = {f.name.rpartition(".")[0] for f in fields if f.name.endswith(".count")}
    for entry in fields:
        where, _, _ = entry.name.rpartition(".")
        if where in counts and _is_hash(entry):
            continue  # of other captions, or images, the content is another one
        yield _told(_named(entry.name), entry.a, entry.b)


def _is_hash(entry: Field) -> bool:
    return entry.name.endswith(("fingerprint", "_sha256"))


def _named(path: str) -> str:
    """Name a field in words."""
    if path in NAMES:
        return NAMES[path]
    parts = path.split(".")
    if parts[:2] == ["protocol", "prompts"] and len(parts) > 2:
        what = " ".join(OF_SETS.get(part, part) for part in parts[3:]) or "captions"
        return f"{what} of '{parts[2]}'"
    if parts[0] in ("protocol", "rows", "budget"):
        parts = parts[1:]
    kept = [part.replace("_", " ") for part in parts if part not in ("settings", "config")]
    return " ".join(kept)


def _told(what: str, a: Any, b: Any) -> str:
    """Say how a field differs."""
    if a is None or b is None:
        there, value = ("second", b) if a is None else ("first", a)
        worth = f" ({_value(value)})" if _value(value) else ""
        return f"{what}: only in the {there}{worth}"
    first, second = _value(a), _value(b)
    return f"{what} differ: {first} and {second}" if first and second else f"{what} differ"


def _value(value: Any) -> str:
    """Write a value; "" if it says nothing to a reader."""
    if isinstance(value, Mapping | list | tuple) or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return "" if HASH.search(text) else text[:LONGEST]
