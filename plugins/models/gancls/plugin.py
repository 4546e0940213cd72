"""GAN-CLS and GAN-INT: the first GANs that made images from sentences."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `gancls`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="gancls",
            summary=(
                "DCGAN with text: wrong pairs (GAN-CLS), interpolated sentences (GAN-INT), or both"
            ),
            paper="Reed et al. 2016, arXiv:1605.05396",
            config="t2i.plugins.models.gancls.config:GANCLSConfig",
            generator="t2i.plugins.models.gancls.networks:build",
            stages="t2i.plugins.models.gancls.training:stages",
            weights="t2i.plugins.models.gancls.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "flowers", "coco", "port", "shapes"),
        )
    ]
