"""What a column of the table is called, what its score means, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from t2i.benchmarks.results import VARIETY, Column
from t2i.benchmarks.score.images.protocols import title
from t2i.core.registry.tables import registry

LAYER_WIDTHS = {"pool": 2048, "logits": 1008}
"""Widths of Inception's layers. A protocol records the width of the whole network alone."""

ENOUGH = 10
"""Images for each feature from which on the bias of a Frechet distance is small."""


@dataclass(frozen=True)
class Explanation:
    """What columns with one meaning measure, and how to read them.

    Args:
        titles: Headings of the columns.
        what: What the score is, one sentence without a full stop.
        reading: How to read it, sentences. "": nothing is known.
    """

    titles: tuple[str, ...]
    what: str
    reading: str


def heading(column: Column, protocol: Mapping[str, Any]) -> str:
    """Return the title of a column. FID and KID are called so on Inception's features only.

    Args:
        column: The column.
        protocol: The protocol of the results.

    Returns:
        The title; a distance on other features that is titled "FID" or "KID" is called "FD" or "KD"
        with the name of the features.
    """
    measure = _measure(column, protocol)
    usual, *rest = column.title.split(",")
    if usual not in ("FID", "KID") or measure.get("metric") not in ("fid", "kid"):
        return column.title
    features = measure.get("settings", {}).get("features") or _extractor(measure).get("name")
    if not features:
        return column.title
    return ",".join([title(str(measure["metric"]), column.score, str(features)), *rest])


def images_of(column: Column, protocol: Mapping[str, Any]) -> int | None:
    """Count the images of a model that a column's score is computed from.

    Args:
        column: The column.
        protocol: The protocol of the results.

    Returns:
        The number; None if the protocol does not say it.
    """
    if column.set == VARIETY:
        variety = protocol.get("variety", {})
        captions, samples = _whole(variety.get("captions")), _whole(variety.get("samples"))
    else:
        counts = [p.get("count") for p in protocol["prompts"] if p.get("name") == column.set]
        captions = _whole(counts[0]) if counts else None
        samples = _whole(protocol.get("samples_per_caption", 1))
    return captions * samples if captions and samples else None


def too_few(column: Column, protocol: Mapping[str, Any]) -> bool:
    """Tell whether a Frechet distance is computed from fewer images than its features are wide.

    The covariance has no full rank then, and the distance is far too large.

    Args:
        column: The column.
        protocol: The protocol of the results.

    Returns:
        True for such a distance, of generated or of reference images; False if a number is unknown,
        and for other scores.
    """
    measure = _measure(column, protocol)
    width, images = _width(measure), images_of(column, protocol)
    if measure.get("metric") != "fid" or width is None or images is None:
        return False
    reference = _whole(protocol.get("reference", {}).get("count"))
    return min(images, images if reference is None else reference) < width


def explained(columns: Iterable[Column], protocol: Mapping[str, Any]) -> list[Explanation]:
    """Explain the columns: each meaning once, with the titles of all columns that have it.

    Args:
        columns: The columns.
        protocol: The protocol of the results. A measure that is no registered metric, such as
            votes, may say "about" and "reading" in its entry there.

    Returns:
        The explanations; columns of which nothing is known are left out.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        what, reading = _meaning(_measure(column, protocol))
        if what:
            reading = " ".join(filter(None, [reading, _numbers(column, protocol)]))
            found.setdefault((what, reading), []).append(heading(column, protocol))
    return [
        Explanation(tuple(dict.fromkeys(titles)), what, reading)
        for (what, reading), titles in found.items()
    ]


def _measure(column: Column, protocol: Mapping[str, Any]) -> Mapping[str, Any]:
    found = protocol.get("measures", {}).get(column.measure, {})
    return found if isinstance(found, Mapping) else {}


def _extractor(measure: Mapping[str, Any]) -> Mapping[str, Any]:
    found = measure.get("extractor")
    return found if isinstance(found, Mapping) else {}


def _width(measure: Mapping[str, Any]) -> int | None:
    extractor = _extractor(measure)
    return _whole(LAYER_WIDTHS.get(str(extractor.get("layer")), extractor.get("dim")))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _meaning(measure: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a measure is, and how to read it: its own words, or those of its metric."""
    if "about" in measure:
        return str(measure["about"]).rstrip("."), str(measure.get("reading", ""))
    metric = str(measure.get("metric"))
    if metric not in registry().metrics:
        return "", ""
    spec = registry().metrics[metric]
    return spec.summary, spec.reading


def _numbers(column: Column, protocol: Mapping[str, Any]) -> str:
    """Say how many images a Frechet distance has, and whether these are enough."""
    measure = _measure(column, protocol)
    width, images = _width(measure), images_of(column, protocol)
    if measure.get("metric") != "fid" or width is None or images is None:
        return ""
    verdict = ""
    if too_few(column, protocol):
        verdict = ": too few, the distance is far too large"
    elif images < ENOUGH * width:
        verdict = ": the distance is too large; compare it only with that of as many images"
    return f"Here: {images:,} images, {width:,} features{verdict}."
