"""DM-GAN: generators in a row that refine images by a dynamic memory of words, and DAMSM."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `dmgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="dmgan",
            summary=(
                "GAN of three scales that refines images by a memory of words with gates for "
                "writing and reading"
            ),
            paper="Zhu et al. 2019, arXiv:1904.01310",
            config="t2i.plugins.models.dmgan.config:DMGANConfig",
            generator="t2i.plugins.models.dmgan.networks:build",
            stages="t2i.plugins.models.dmgan.training:stages",
            helpers="t2i.plugins.common.gan.trees.matching:helpers",
            weights="t2i.plugins.models.dmgan.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "coco", "shapes"),
        )
    ]
