"""Imagen, and DeepFloyd IF's stages, which open from diffusers' folders."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `imagen`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="imagen",
            summary="A cascade on pixels that reads T5: 64 to 256 to 1024 px",
            family="cascade",
            paper="Saharia et al. 2022, arXiv:2205.11487",
            config="t2i.plugins.models.imagen.config:ImagenConfig",
            presets=("tiny", "imagen", "if", "shapes"),
            generator="t2i.plugins.models.imagen.networks:ImagenGenerator",
            stages="t2i.plugins.models.imagen.training:stages",
        )
    ]
