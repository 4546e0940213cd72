"""The model `flowmatching`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `flowmatching`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="flowmatching",
            summary="Flow matching on straight paths: a transformer or a U-Net predicts velocities",
            family="diffusion",
            paper="Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003",
            config="t2i.plugins.models.flowmatching.config:FlowMatchingConfig",
            presets=("tiny", "coco", "sd3", "shapes"),
            generator="t2i.plugins.models.flowmatching.networks:FlowMatchingGenerator",
            stages="t2i.plugins.models.flowmatching.training:stages",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
        )
    ]
