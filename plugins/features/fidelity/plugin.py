"""The networks that torch-fidelity computes its scores with, as feature extractors."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FeatureSpec


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `inception` and `vgg16`.

    Returns:
        Their specifications.
    """
    return [
        FeatureSpec(
            name="inception",
            summary=(
                "Inception-v3 of the FID's authors, as torch-fidelity has it; layers pool and "
                "logits"
            ),
            config="t2i.plugins.features.fidelity.config:InceptionConfig",
            build="t2i.plugins.features.fidelity.features:inception",
        ),
        FeatureSpec(
            name="vgg16",
            summary=(
                "VGG-16's last layer but one, torch-fidelity's default for precision and recall"
            ),
            config="t2i.plugins.features.fidelity.config:FidelityConfig",
            build="t2i.plugins.features.fidelity.features:vgg16",
        ),
    ]
