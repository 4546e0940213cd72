"""StackGAN-v2: a tree of generators, trained together, each with a discriminator."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `stackganv2`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="stackganv2",
            summary=(
                "GAN whose tree of generators makes images of three sizes, each scored with and "
                "without its text"
            ),
            paper="Zhang et al. 2018, arXiv:1710.10916",
            config="t2i.plugins.models.stackganv2.config:StackGANv2Config",
            generator="t2i.plugins.models.stackganv2.networks:build",
            stages="t2i.plugins.models.stackganv2.training:stages",
            weights="t2i.plugins.models.stackganv2.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "shapes"),
        )
    ]
