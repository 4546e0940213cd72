"""Imagen, and DeepFloyd IF's stages, which open from diffusers' folders."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the models `imagen` and `deepfloyd`.

    Returns:
        Their specifications.
    """
    return [
        ModelSpec(
            name="imagen",
            summary="A cascade on pixels that reads T5: 64 to 256 to 1024 px",
            family="cascade",
            paper="Saharia et al. 2022, arXiv:2205.11487",
            config="t2i.plugins.models.imagen.config:ImagenConfig",
            presets=("tiny", "shapes", "imagen", "if"),
            generator="t2i.plugins.models.imagen.networks:ImagenGenerator",
            stages="t2i.plugins.models.imagen.training:stages",
        ),
        ModelSpec(
            name="deepfloyd",
            summary="One stage of DeepFloyd IF, on diffusers' network; opens its folders",
            family="diffusion",
            paper="DeepFloyd Lab 2023, github.com/deep-floyd/IF",
            config="t2i.plugins.models.imagen.deepfloyd:DeepFloydConfig",
            presets=("tiny", "xl", "super"),
            generator="t2i.plugins.models.imagen.stages:generator_of",
            stages="t2i.plugins.models.imagen.stages_training:stages",
            weights="t2i.plugins.models.imagen.folders:weights",
            open_pretrained="t2i.plugins.models.imagen.folders:open_pretrained",
            opens="folders of diffusers' IFPipeline and IFSuperResolutionPipeline",
            open_settings=("low_size",),
            export="t2i.plugins.models.imagen.folders:export",
        ),
    ]
