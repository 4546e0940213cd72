"""What the harness registers: the metrics and features that serve every data set."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, FeatureSpec, HubFiles, MetricSpec


@hookimpl
def t2i_features() -> list[FeatureSpec]:
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
    return [_metric(name, summary) for name, summary in _SUMMARIES.items()]


_SUMMARIES = {
    "fid": "Frechet distance between the features of real and generated images",
    "kid": "Kernel distance between the features of real and generated images",
    "prc": "Precision (generated images that look real) and recall (real ones that are reached)",
    "isc": "Inception score: how sure of its class each image is, and how many classes there are",
    "clip-score": "How near an image is to its caption, as a CLIP sees both",
    "r-precision": "How often an image is nearer to its own caption than to 99 others, as a CLIP sees them",
    "diversity": "How unlike each other the images of one caption are; tells mode collapse",
}


def _metric(name: str, summary: str) -> MetricSpec:
    """The specification of a metric that lives in a file of its name."""
    module = f"t2i.benchmarks.score.metrics.{name.replace('-', '_')}"
    config = "".join(part.title() for part in name.split("-")) + "Config"
    return MetricSpec(
        name=name, summary=summary, config=f"{module}:{config}", build=f"{module}:build"
    )


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Networks whose features are compared. Files and the digits of their SHA-256 as torch-fidelity 0.4 names them."""
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
            summary="VGG-16's weights, of torchvision: precision and recall as torch-fidelity computes them",
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
