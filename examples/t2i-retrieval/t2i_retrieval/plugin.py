"""The hooks of this plugin: what it adds to t2i."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import (
    BenchmarkSpec,
    DatasetSpec,
    FamilySpec,
    FeatureSpec,
    MetricSpec,
    ModelSpec,
    SamplerSpec,
    TextEncoderSpec,
)


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `retrieval`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="retrieval",
            summary="Stores training images and samples those whose captions are nearest",
            paper="Weinberger & Tesauro 2007, Metric Learning for Kernel Regression",
            family="retrieval",
            presets=("tiny",),
            config="t2i_retrieval.config:RetrievalConfig",
            generator="t2i_retrieval.memory:build",
            stages="t2i_retrieval.training:stages",
        )
    ]


@hookimpl
def t2i_families() -> list[FamilySpec]:
    """Declare the family `retrieval`.

    Returns:
        Its specification.
    """
    return [
        FamilySpec(
            name="retrieval",
            summary="Generators that return a caption's distances to those of stored images",
            generator="t2i_retrieval.memory:RetrievalGenerator",
        )
    ]


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `hashed-words`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="hashed-words",
            summary="A caption as a hashed bag of its words and word pairs; nothing to train",
            config="t2i_retrieval.config:HashedWordsConfig",
            build="t2i_retrieval.encoder:build",
        )
    ]


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `nearest`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="nearest",
            summary="A random one of the nearest stored images, by its distance",
            config="t2i_retrieval.config:NearestConfig",
            build="t2i_retrieval.sampler:NearestSampler",
            families=("retrieval",),
        )
    ]


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `stripes`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="stripes",
            summary="Stripes of two colours, two widths and three directions; endless, no download",
            config="t2i_retrieval.config:StripesConfig",
            build="t2i_retrieval.stripes:Stripes",
            splits=("train", "val"),
            needs_dir=False,
        )
    ]


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the feature extractor `colour-histogram`.

    Returns:
        Its specification.
    """
    return [
        FeatureSpec(
            name="colour-histogram",
            summary="Share of each of 64 colours in an image: no network, for any data set",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:histogram",
        )
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    """Declare the metric `distinct`.

    Returns:
        Its specification.
    """
    return [
        MetricSpec(
            name="distinct",
            summary="Percentage of different images among all images of a set",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:distinct",
        )
    ]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    """Declare the benchmark `stripes`.

    Returns:
        Its specification.
    """
    return [
        BenchmarkSpec(
            name="stripes",
            summary="Models side by side on images of stripes",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:benchmark",
            protocols=("tiny",),
        )
    ]
