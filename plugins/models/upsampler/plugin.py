"""The model `upsampler`: it enlarges the images of another model."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `upsampler`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="upsampler",
            summary="Enlarges another model's images by diffusion: t2i sample --upsample",
            family="diffusion",
            paper="Ho et al. 2021, arXiv:2106.15282",
            config="t2i.plugins.models.upsampler.config:UpsamplerConfig",
            presets=("tiny", "up256", "up1024", "shapes", "shapes64"),
            generator="t2i.plugins.common.cascades.networks:UpsamplerGenerator",
            stages="t2i.plugins.models.upsampler.training:stages",
        )
    ]
