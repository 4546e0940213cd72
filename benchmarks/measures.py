"""Which measures of a benchmark can be made here: optional ones are left out, and said to be, where something that
they need is not there."""

from __future__ import annotations

from dataclasses import replace

from t2i.benchmarks.features import Extractors
from t2i.benchmarks.scorer import build_metric
from t2i.core.errors import UserError
from t2i.core.scoring import Benchmark, Measure


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
    try:
        features = build_metric(measure).features
        if features:
            Extractors([features], "cpu", benchmark.features)
    except UserError as error:
        return str(error)
    return None
