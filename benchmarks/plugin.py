"""The plugin of the benchmark harness: metrics and features that work with every data set."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, FeatureSpec, HubFiles, MetricSpec


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the feature extractors of the harness.

    Returns:
        One extractor, "pixels", which works with any data set.
    """
    return [
        FeatureSpec(
            name="pixels",
            summary="The image itself, averaged to 16x16: no network, for any data set",
            config="t2i.benchmarks.score.metrics.pixels:PixelsConfig",
            build="t2i.benchmarks.score.metrics.pixels:build",
            default=True,
        )
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    """Declare the metrics of the harness.

    Returns:
        One specification for each module of `score/metrics` that defines a metric, and one for
        each judge.
    """
    own = [_metric(name, summary) for name, summary in _SUMMARIES.items()]
    judged = [_metric(name, summary, "judged") for name, summary in _JUDGES.items()]
    return [*own, *judged]


_SUMMARIES = {
    "fid": "Frechet distance between the features of real and generated images",
    "kid": "Kernel distance between the features of real and generated images",
    "prc": "Precision (generated images that look real) and recall (real ones that are reached)",
    "isc": "Inception score: how sure of its class each image is, and how many classes there are",
    "clip-score": "Similarity of an image and its caption in the feature space of a CLIP",
    "r-precision": "How often a CLIP finds an image nearer to its own caption than to 99 others",
    "memorised": "How many images are copies of training images, and how far all are from these "
    "(1: as far as new real images)",
    "diversity": "How much the images of one caption differ; detects mode collapse",
    "bits-per-dim": "Bits that a model spends on each value of a real image (its likelihood)",
}

_READING = {
    "fid": "Low is good, 0 is equal. It falls with the number of images: compare equal numbers "
    "only. It is called FID on Inception's features alone, FD on others.",
    "kid": "Low is good. It has no bias from the number of images, so about 0, even below, is as "
    "good as real images.",
    "prc": "100 is good, for both; read them together.",
    "isc": "High is good, for photographs of objects.",
    "clip-score": "High is good. A model that was trained on this CLIP has an advantage.",
    "r-precision": "100 is good. A model that was trained on this CLIP has an advantage.",
    "memorised": "About 0 % copies, and a distance of about 1, are good.",
    "diversity": "About that of the real images is good; far below it the model has collapsed.",
    "bits-per-dim": "Low is good. It is a property of the model, not of its images.",
    **dict.fromkeys(
        ("pickscore", "hpsv2", "image-reward"),
        "High is good. Compare models on the same captions only. A model that was tuned on this "
        "judge has an advantage.",
    ),
    **dict.fromkeys(
        ("vqascore", "tifa", "dsg"),
        "100 is good. The answers are a network's, which errs too: compare models on the same "
        "captions only.",
    ),
}


_JUDGES = {
    "pickscore": "How much people would like an image of the caption, by PickScore",
    "hpsv2": "How much people would like an image of the caption, by HPSv2.1 or HPSv2",
    "image-reward": "How much people would like an image of the caption, by ImageReward",
    "vqascore": "How sure a network is that an image shows its caption, 0 to 100",
    "tifa": "Share of TIFA's published questions about a caption that are answered right",
    "dsg": "Share of DSG's published questions about a caption that are answered right",
}


def _metric(name: str, summary: str, module: str = "") -> MetricSpec:
    """Return the specification of a metric, whose module has the metric's name if none is given."""
    module = f"t2i.benchmarks.score.metrics.{module or name.replace('-', '_')}"
    config = "".join(part.title() for part in name.split("-")) + "Config"
    return MetricSpec(
        name=name, summary=summary, config=f"{module}:{config}", build=f"{module}:build",
        reading=_READING[name],
    )  # fmt: skip


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the networks whose features the metrics compare.

    Returns:
        Inception, VGG-16 and DINOv2. The first two use the files and the leading digits of the
        SHA-256 that torch-fidelity 0.4 names.
    """
    return [
        DownloadSpec(
            name="inception",
            summary="Inception's weights of 2015, as torch-fidelity has them: FID, KID, IS",
            licence="Apache 2.0",
            licence_url="https://github.com/tensorflow/models/blob/master/LICENSE",
            files=(
                DownloadFile(
                    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                    "weights-inception-2015-12-05-6726825d.pth",
                    checksum="sha256:6726825d",
                ),
            ),
        ),
        DownloadSpec(
            name="vgg16",
            summary="VGG-16's weights, of torchvision: precision and recall as torch-fidelity "
            "computes them",
            licence="BSD 3-Clause",
            licence_url="https://github.com/pytorch/vision/blob/main/LICENSE",
            files=(
                DownloadFile(
                    url="https://download.pytorch.org/models/vgg16-397923af.pth",
                    checksum="sha256:397923af",
                ),
            ),
        ),
        DownloadSpec(
            name="dinov2",
            summary="DINOv2 ViT-L/14 in timm's layout: Frechet distance on its features",
            licence="Apache 2.0",
            licence_url="https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m",
            hub=(HubFiles(repository="timm/vit_large_patch14_dinov2.lvd142m"),),
        ),
    ]
