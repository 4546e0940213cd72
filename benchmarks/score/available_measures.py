"""Which measures of a benchmark can be made here: optional ones are left out, and said to be, where something that
they need is not there."""

from __future__ import annotations

from dataclasses import replace

from t2i.benchmarks.score.extraction import Extractors
from t2i.benchmarks.score.scorer import build_metric
from t2i.core.errors import UserError
from t2i.core.fetch.downloads import status
from t2i.core.interfaces.scoring import Benchmark, Measure
from t2i.core.registry.tables import registry


def with_what_is_there(benchmark: Benchmark) -> tuple[Benchmark, dict[str, str]]:
    """The benchmark without the optional measures that cannot be made, and why each of those is left out."""
    left_out: dict[str, str] = {}
    for measure in benchmark.measures:
        if measure.optional and (reason := _hindrance(measure, benchmark)):
            left_out[measure.name] = reason
    made = [measure for measure in benchmark.measures if measure.name not in left_out]
    return replace(benchmark, measures=made), left_out


def _hindrance(measure: Measure, benchmark: Benchmark) -> str | None:
    """What stands in a measure's way: its metric or its features are not registered, or not fetched."""
    features = None
    try:
        features = build_metric(measure).features
        if features:
            Extractors([features], "cpu", benchmark.features)
    except UserError as error:
        return _unfetched(features) or str(error)
    return None


def _unfetched(features: str | None) -> str | None:
    """The command that would help, where all that is wrong is that it was not given. (The error itself tells every
    other way to come by the weights too.)"""
    name = (features or "").partition("/")[0]
    downloads = registry().downloads
    if name not in downloads or not status(downloads[name]).missing:
        return None
    return f"'t2i fetch {name}' gets its weights"
