"""The model `cvaegan`: CVAE-GAN, with an image-text matcher in place of the classifier."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `cvaegan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="cvaegan",
            summary="CVAE-GAN: encoder, generator, discriminator, matcher; feature means matched",
            family="one-shot",
            paper="Bao et al. 2017, arXiv:1703.10155",
            config="t2i.plugins.models.cvaegan.config:CVAEGANConfig",
            presets=("tiny", "cub", "flowers", "shapes"),
            generator="t2i.plugins.models.cvaegan.networks:build",
            stages="t2i.plugins.models.cvaegan.training:stages",
        )
    ]
