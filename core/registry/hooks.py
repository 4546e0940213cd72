"""The hooks through which every plugin, built in or foreign, says what it has.

A plugin is a module (or object) named by an entry point of the group `t2i`. Each hook returns light specifications
(t2i.core.registry.specs): names and import paths, so that listing plugins imports neither torch nor any network.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from t2i.core.registry.specs import (
    BenchmarkSpec,
    DatasetSpec,
    DownloadSpec,
    FamilySpec,
    FeatureSpec,
    MetricSpec,
    ModelSpec,
    SamplerSpec,
    TextEncoderSpec,
)

GROUP = "t2i"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def t2i_models() -> Sequence[ModelSpec]:  # type: ignore[empty-body]
    """Models that can be trained, sampled and scored."""


@hookspec
def t2i_families() -> Sequence[FamilySpec]:  # type: ignore[empty-body]
    """Families of generators: classes that fix how a generator is called."""


@hookspec
def t2i_samplers() -> Sequence[SamplerSpec]:  # type: ignore[empty-body]
    """Ways to draw images from a generator."""


@hookspec
def t2i_text_encoders() -> Sequence[TextEncoderSpec]:  # type: ignore[empty-body]
    """Text encoders that any model may be conditioned on."""


@hookspec
def t2i_datasets() -> Sequence[DatasetSpec]:  # type: ignore[empty-body]
    """Data sets of captioned images."""


@hookspec
def t2i_features() -> Sequence[FeatureSpec]:  # type: ignore[empty-body]
    """Frozen feature extractors, for the metrics that compare distributions of features."""


@hookspec
def t2i_metrics() -> Sequence[MetricSpec]:  # type: ignore[empty-body]
    """Scores of a set of generated images."""


@hookspec
def t2i_benchmarks() -> Sequence[BenchmarkSpec]:  # type: ignore[empty-body]
    """Benchmarks: which captions, which reference images, which metrics."""


@hookspec
def t2i_downloads() -> Sequence[DownloadSpec]:  # type: ignore[empty-body]
    """Files that have to be got from elsewhere (`t2i fetch`): pretrained weights, data sets."""
