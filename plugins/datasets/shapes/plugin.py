"""The plugin `shapes`: the data set, features for its images, a metric of captions, a benchmark."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import (
    BenchmarkSpec,
    DatasetSpec,
    FeatureSpec,
    MetricSpec,
    ShippedWeights,
)


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `shapes`, the default.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            default=True,
            name="shapes",
            summary="simple shapes with exact captions, rendered on demand; endless, no download",
            config="t2i.plugins.datasets.shapes.config:ShapesConfig",
            judge="shapes-clip",
            scores=("caption-accuracy.all", "fid:shapes"),
            build="t2i.plugins.datasets.shapes.dataset:build",
            splits=("train", "val", "compositions"),
            needs_dir=False,
            takes_dir=False,
            shipped=(
                ShippedWeights(
                    name="shapes-clip", folder="t2i.plugins.datasets.shapes:pretrained/clip"
                ),
                ShippedWeights(
                    name="shapes-autoencoder",
                    folder="t2i.plugins.datasets.shapes:pretrained/autoencoder",
                ),
                ShippedWeights(
                    name="shapes-tokens", folder="t2i.plugins.datasets.shapes:pretrained/tokens"
                ),
            ),
        )
    ]


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `shapes` and `shapes-clip`.

    Returns:
        Their specifications.
    """
    return [
        FeatureSpec(
            name="shapes",
            summary="a small frozen network that recognises what is where in images of shapes",
            config="t2i.plugins.datasets.shapes.config:FeaturesConfig",
            build="t2i.plugins.datasets.shapes.features:build",
        ),
        FeatureSpec(
            name="shapes-clip",
            summary="the tiny CLIP of images of shapes: images and captions in one space",
            config="t2i.plugins.datasets.shapes.config:ClipFeaturesConfig",
            build="t2i.plugins.datasets.shapes.clip_features:build",
            text=True,
        ),
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    """Declare the metric `caption-accuracy`.

    Returns:
        Its specification.
    """
    return [
        MetricSpec(
            name="caption-accuracy",
            summary="how much of its caption an image of shapes shows, by an exact reader",
            config="t2i.plugins.datasets.shapes.config:CaptionAccuracyConfig",
            build="t2i.plugins.datasets.shapes.metric:build",
            reading="100 is good: images show all that captions say. Random ones have about 0.",
        )
    ]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    """Declare the benchmark `shapes`.

    Returns:
        Its specification.
    """
    return [
        BenchmarkSpec(
            name="shapes",
            summary=(
                "a diffusion model against a GAN on images of shapes, every caption checked exactly"
            ),
            config="t2i.plugins.datasets.shapes.benchmark:ShapesBenchmarkConfig",
            build="t2i.plugins.datasets.shapes.benchmark:build",
            protocols=("tiny",),
        )
    ]
