"""The model `dalle`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `dalle`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="dalle",
            summary="DALL-E: a dVAE, then one transformer over text and image tokens",
            paper="Ramesh et al. 2021, arXiv:2102.12092",
            family="autoregressive",
            presets=("tiny", "coco", "mindalle", "shapes"),
            config="t2i.plugins.models.dalle.config:DalleConfig",
            generator="t2i.plugins.models.dalle.networks:build",
            stages="t2i.plugins.models.dalle.training:stages",
            weights="t2i.plugins.models.dalle.weights:load",
        )
    ]
