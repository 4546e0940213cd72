"""AttnGAN: generators in a row that attend to words, a discriminator for each, and DAMSM."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `attngan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="attngan",
            summary=(
                "GAN of three scales with attention to words, and a loss of text-image matching "
                "(DAMSM)"
            ),
            paper="Xu et al. 2018, arXiv:1711.10485",
            config="t2i.plugins.models.attngan.config:AttnGANConfig",
            generator="t2i.plugins.models.attngan.networks:build",
            stages="t2i.plugins.models.attngan.training:stages",
            helpers="t2i.plugins.common.gan.trees.matching:helpers",
            moved=("generator.image_encoder.=helpers.image_encoder.",),
            weights="t2i.plugins.models.attngan.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "coco", "shapes"),
        )
    ]
