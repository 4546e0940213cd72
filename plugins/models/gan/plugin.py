"""The vanilla GAN: two fully connected networks, without text."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `gan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="gan",
            summary="The vanilla GAN: two fully connected networks; captions change nothing",
            paper="Goodfellow et al. 2014, arXiv:1406.2661",
            config="t2i.plugins.models.gan.config:GANModelConfig",
            generator="t2i.plugins.models.gan.networks:build",
            stages="t2i.plugins.models.gan.training:stages",
            family="one-shot",
            presets=("tiny", "mnist", "cifar", "shapes"),
        )
    ]
