"""The model `glow`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `glow`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="glow",
            summary="A normalising flow of actnorm, invertible 1x1 convolutions and couplings",
            paper="Kingma & Dhariwal 2018, arXiv:1807.03039",
            family="flow",
            presets=("tiny", "cifar", "openai", "faces", "shapes"),
            config="t2i.plugins.models.glow.config:GlowConfig",
            generator="t2i.plugins.models.glow.networks:build",
            stages="t2i.plugins.models.glow.training:stages",
        )
    ]
