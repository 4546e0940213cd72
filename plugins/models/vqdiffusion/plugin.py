"""The model `vqdiffusion`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `vqdiffusion`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="vqdiffusion",
            summary="Discrete diffusion: tokens are masked and replaced, and all predicted at once",
            paper="Gu et al. 2022, arXiv:2111.14822; Tang et al. 2022, arXiv:2205.16007",
            family="discrete-diffusion",
            presets=("tiny", "coco", "cub", "ithq", "maskgit", "shapes"),
            config="t2i.plugins.models.vqdiffusion.config:VQDiffusionConfig",
            generator="t2i.plugins.models.vqdiffusion.networks:build",
            stages="t2i.plugins.models.vqdiffusion.training:stages",
            weights="t2i.plugins.models.vqdiffusion.weights:load",
        )
    ]
