"""GALIP: a GAN whose generator and discriminator both use a frozen CLIP."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `galip`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="galip",
            summary="One-stage GAN around a frozen CLIP that generator and discriminator share",
            paper="Tao et al. 2023, arXiv:2301.12959",
            config="t2i.plugins.models.galip.config:GALIPConfig",
            generator="t2i.plugins.models.galip.networks:build",
            stages="t2i.plugins.models.galip.training:stages",
            family="one-shot",
            presets=("tiny", "cub", "coco", "thesis", "shapes"),
            weights="t2i.plugins.models.galip.weights:load_weights",
        )
    ]
