"""Find the measures that can be computed here.

Optional measures are left out, with a message, if something that they need is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from t2i.benchmarks.score.extraction import Extractors
from t2i.benchmarks.score.scorer import build_metric
from t2i.core.errors import UserError
from t2i.core.fetch.downloads import status
from t2i.core.interfaces.scoring import Benchmark, Measure
from t2i.core.registry.tables import registry


def with_what_is_there(benchmark: Benchmark) -> tuple[Benchmark, dict[str, str]]:
    """Leave out the optional measures of a benchmark that cannot be computed here.

    Args:
        benchmark: The benchmark.

    Returns:
        The benchmark with the other measures, and the reason for each measure that is left out, by
        its name. If that of the headline is left out, the spare headline or else the first measure
        ranks the models.

    Raises:
        UserError: No measure is left.
    """
    left_out: dict[str, str] = {}
    for measure in benchmark.measures:
        if measure.optional and (reason := hindrance(measure, benchmark.features)):
            left_out[measure.name] = reason
    made = [measure for measure in benchmark.measures if measure.name not in left_out]
    if not made:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UserError(f"benchmark '{benchmark.name}': no measure can be computed here: {reasons}")
    headline = benchmark.headline
    if headline[0] in left_out and benchmark.spare_headline:
        headline = benchmark.spare_headline
    if headline[0] in left_out:
        first = made[0]
        headline = (first.name, next(iter(first.shown or build_metric(first).better)))
    return replace(benchmark, measures=made, headline=headline), left_out


def hindrance(measure: Measure, settings: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Find out why a measure cannot be computed here.

    Args:
        measure: The measure.
        settings: Settings of feature extractors by registry name.

    Returns:
        The reason, with the command that fetches the weights if that is all that is missing. None:
        the measure can be computed.
    """
    features = None
    try:
        features = build_metric(measure).features
        if features:
            Extractors([features], "cpu", settings)
    except UserError as error:
        return _unfetched(features) or str(error)
    return None


def _unfetched(features: str | None) -> str | None:
    """Return the command that fetches the weights, if that is all that is missing.

    It is shorter than the error, which names every other way to get the weights too.
    """
    name = (features or "").partition("/")[0]
    downloads = registry().downloads
    if name not in downloads or not status(downloads[name]).missing:
        return None
    return f"'t2i fetch {name}' gets its weights"
