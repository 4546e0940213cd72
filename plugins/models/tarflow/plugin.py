"""The model `tarflow`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `tarflow`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="tarflow",
            summary="An autoregressive transformer flow on patches or latents, with guidance",
            paper="Zhai et al. 2024, arXiv:2412.06329; Gu et al. 2025, arXiv:2506.06276 (STARFlow)",
            family="flow",
            presets=("tiny", "imagenet64", "imagenet128", "starflow", "shapes"),
            config="t2i.plugins.models.tarflow.config:TarFlowConfig",
            generator="t2i.plugins.models.tarflow.networks:build",
            stages="t2i.plugins.models.tarflow.training:stages",
        )
    ]
