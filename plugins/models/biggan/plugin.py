"""BigGAN, conditioned on text: hierarchical noise, spectral norm, a projection discriminator."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `biggan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="biggan",
            summary=(
                "One-stage GAN: hierarchical noise, conditional batch norm, spectral norm, "
                "projection discriminator"
            ),
            paper="Brock et al. 2019, arXiv:1809.11096",
            config="t2i.plugins.models.biggan.config:BigGANConfig",
            generator="t2i.plugins.models.biggan.networks:build",
            stages="t2i.plugins.models.biggan.training:stages",
            weights="t2i.plugins.models.biggan.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "cub256", "coco", "coco256", "shapes"),
        )
    ]
