"""What the harness registers: the metrics and features that serve every data set."""

from __future__ import annotations

from t2i.core.hooks import hookimpl
from t2i.core.specs import FeatureSpec, MetricSpec


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    return [
        FeatureSpec(
            name="pixels",
            summary="The picture itself, averaged to 16x16: no network, for any data set",
            config="t2i.benchmarks.metrics.pixels:PixelsConfig",
            build="t2i.benchmarks.metrics.pixels:build",
        )
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    return [_metric(name, summary) for name, summary in _SUMMARIES.items()]


_SUMMARIES = {
    "fid": "Frechet distance between the features of real and generated pictures",
    "kid": "Kernel distance between the features of real and generated pictures",
    "prc": "Precision (generated pictures that look real) and recall (real ones that are reached)",
    "isc": "Inception score: how sure of its class each picture is, and how many classes there are",
    "clip-score": "How near a picture is to its caption, as a CLIP sees both",
    "r-precision": "How often a picture is nearer to its own caption than to 99 others, as a CLIP sees them",
    "diversity": "How unlike each other the pictures of one caption are; tells mode collapse",
}


def _metric(name: str, summary: str) -> MetricSpec:
    """The specification of a metric that lives in a file of its name."""
    module = f"t2i.benchmarks.metrics.{name.replace('-', '_')}"
    config = "".join(part.title() for part in name.split("-")) + "Config"
    return MetricSpec(name=name, summary=summary, config=f"{module}:{config}", build=f"{module}:build")
