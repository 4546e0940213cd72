"""GenEval's judge: a detector and a CLIP check the objects that a prompt names."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, FeatureSpec, HubFiles, MetricSpec

PACKAGE = "t2i.plugins.features.geneval"


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `geneval`.

    Returns:
        Their specification.
    """
    return [
        FeatureSpec(
            name="geneval",
            summary="whether an image shows the objects of GenEval's prompt: Mask2Former and CLIP",
            config=f"{PACKAGE}.config:GenevalFeaturesConfig",
            build=f"{PACKAGE}.features:build",
        )
    ]


@hookimpl
def t2i_metrics() -> list[MetricSpec]:
    """Declare the metric `geneval`.

    Returns:
        Its specification.
    """
    return [
        MetricSpec(
            name="geneval",
            summary="How often an image shows the objects, counts, colours and positions that "
            "GenEval's prompt names, by its rules",
            config=f"{PACKAGE}.config:GenevalConfig",
            build=f"{PACKAGE}.metric:build",
            reading="100 is good. The detector is not that of the published numbers, and it errs: "
            "on newer models GenEval's differed from people by up to 17.7 points.",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the detector, and the CLIP that names colours.

    Returns:
        Their specification.
    """
    return [
        DownloadSpec(
            name="geneval",
            summary="GenEval's judge: Mask2Former Swin-S (0.3 GB) and CLIP ViT-L/14 (1.7 GB)",
            licence="CC BY-NC 4.0 for the detector; MIT for CLIP",
            licence_url="https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md",
            hub=(
                HubFiles(repository="facebook/mask2former-swin-small-coco-instance"),
                HubFiles(repository="openai/clip-vit-large-patch14"),
            ),
        )
    ]
