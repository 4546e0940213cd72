"""Backbones of timm, including DINOv2, as feature extractors."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FeatureSpec


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `dinov2` and `timm`.

    Returns:
        Their specifications.
    """
    return [
        FeatureSpec(
            name="dinov2",
            summary=(
                "DINOv2 ViT-L/14, whose Frechet distance follows human judgement better than "
                "Inception's"
            ),
            config="t2i.plugins.features.timm.config:Dinov2Config",
            build="t2i.plugins.features.timm.features:dinov2",
        ),
        FeatureSpec(
            name="timm",
            summary=(
                "any backbone of timm, by name (model) with weights from the hub or a file "
                "(weights)"
            ),
            config="t2i.plugins.features.timm.config:TimmConfig",
            build="t2i.plugins.features.timm.features:build",
        ),
    ]
