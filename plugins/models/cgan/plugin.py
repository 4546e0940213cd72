"""The conditional GAN: two fully connected networks, which both take the sentence."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `cgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="cgan",
            summary="The conditional GAN: two fully connected networks that take the sentence",
            paper="Mirza and Osindero 2014, arXiv:1411.1784",
            config="t2i.plugins.models.cgan.config:CGANConfig",
            generator="t2i.plugins.models.cgan.networks:build",
            stages="t2i.plugins.models.cgan.training:stages",
            family="one-shot",
            presets=("tiny", "mnist", "shapes"),
        )
    ]
