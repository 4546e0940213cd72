"""The model `parti`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `parti`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="parti",
            summary="An encoder of the text and a decoder of image tokens, with guidance",
            paper="Yu et al. 2022, arXiv:2206.10789; Yu et al. 2021, arXiv:2110.04627 (ViT-VQGAN)",
            family="autoregressive",
            presets=("tiny", "350m", "750m", "3b", "20b", "shapes"),
            config="t2i.plugins.models.parti.config:PartiConfig",
            generator="t2i.plugins.models.parti.networks:PartiGenerator",
            stages="t2i.plugins.models.parti.training:stages",
        )
    ]
