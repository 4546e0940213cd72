"""The model `glide`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `glide`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="glide",
            summary="A text transformer, a diffusion model of small images, and an upsampler",
            family="cascade",
            paper="Nichol et al. 2022, arXiv:2112.10741",
            config="t2i.plugins.models.glide.config:GlideConfig",
            presets=("tiny", "shapes", "filtered", "paper"),
            generator="t2i.plugins.models.glide.networks:GlideGenerator",
            stages="t2i.plugins.models.glide.training:stages",
            weights="t2i.plugins.models.glide.weights:load_weights",
        )
    ]
