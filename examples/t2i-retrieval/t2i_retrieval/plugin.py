"""What this plugin has."""

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
    return [
        ModelSpec(
            name="retrieval",
            summary="Remembers training images and draws the ones whose captions are nearest",
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
    return [
        FamilySpec(
            name="retrieval",
            summary="Distances of a caption to those of remembered images",
            generator="t2i_retrieval.memory:RetrievalGenerator",
        )
    ]


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    return [
        TextEncoderSpec(
            name="hashed-words",
            summary="A caption as the bag of its words and pairs of words, hashed; nothing to train",
            config="t2i_retrieval.config:HashedWordsConfig",
            build="t2i_retrieval.encoder:build",
        )
    ]


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    return [
        SamplerSpec(
            name="nearest",
            summary="One of the nearest remembered images, at random by its distance",
            config="t2i_retrieval.config:NearestConfig",
            build="t2i_retrieval.sampler:NearestSampler",
            families=("retrieval",),
        )
    ]


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="stripes",
            summary="Stripes of two colours, wide or narrow, in three directions; endless, no download",
            config="t2i_retrieval.config:StripesConfig",
            build="t2i_retrieval.stripes:Stripes",
            splits=("train", "val"),
            needs_dir=False,
        )
    ]


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    return [
        FeatureSpec(
            name="colour-histogram",
            summary="How much of an image is of each of 64 colours: no network, for any data set",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:histogram",
        )
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    return [
        MetricSpec(
            name="distinct",
            summary="Percentage of images that are no exact copy of another one in the set",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:distinct",
        )
    ]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    return [
        BenchmarkSpec(
            name="stripes",
            summary="Models side by side on images of stripes",
            config="t2i_retrieval.config:Nothing",
            build="t2i_retrieval.scores:benchmark",
            protocols=("tiny",),
        )
    ]
