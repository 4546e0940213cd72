"""The hooks by which every plugin, built-in or third-party, declares what it provides.

A plugin is a module or object that an entry point of the group `t2i` names. It implements any of
the hooks below and marks them with `@t2i.hookimpl`. A hook returns light specifications
(`t2i.core.registry.specs`): names and import paths, so that listing plugins imports neither torch
nor any network.
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
"""Name of the entry-point group of plugins."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Decorator that marks a plugin's implementation of a hook."""


@hookspec
def t2i_models() -> Sequence[ModelSpec]:  # type: ignore[empty-body]
    """Declare models, which can be trained, sampled and scored.

    Returns:
        One specification for each model.
    """


@hookspec
def t2i_families() -> Sequence[FamilySpec]:  # type: ignore[empty-body]
    """Declare families: base classes of generators that fix how a generator is called.

    Returns:
        One specification for each family.
    """


@hookspec
def t2i_samplers() -> Sequence[SamplerSpec]:  # type: ignore[empty-body]
    """Declare samplers, which sample images from a generator.

    Returns:
        One specification for each sampler.
    """


@hookspec
def t2i_text_encoders() -> Sequence[TextEncoderSpec]:  # type: ignore[empty-body]
    """Declare text encoders, on which any model can be conditioned.

    Returns:
        One specification for each text encoder.
    """


@hookspec
def t2i_datasets() -> Sequence[DatasetSpec]:  # type: ignore[empty-body]
    """Declare data sets of captioned images.

    Returns:
        One specification for each data set.
    """


@hookspec
def t2i_features() -> Sequence[FeatureSpec]:  # type: ignore[empty-body]
    """Declare frozen feature extractors, whose features metrics read.

    Returns:
        One specification for each feature extractor.
    """


@hookspec
def t2i_metrics() -> Sequence[MetricSpec]:  # type: ignore[empty-body]
    """Declare metrics, which score a set of images.

    Returns:
        One specification for each metric.
    """


@hookspec
def t2i_benchmarks() -> Sequence[BenchmarkSpec]:  # type: ignore[empty-body]
    """Declare benchmarks: captions, reference images and metrics.

    Returns:
        One specification for each benchmark.
    """


@hookspec
def t2i_downloads() -> Sequence[DownloadSpec]:  # type: ignore[empty-body]
    """Declare downloads for `t2i fetch`, such as pretrained weights and data sets.

    Returns:
        One specification for each download.
    """
