"""StackGAN: one generator makes a small image, a second one makes a large image from it."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `stackgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="stackgan",
            summary=(
                "Two-stage GAN: a small image from text and noise, "
                "then a large one from it and the text again"
            ),
            paper="Zhang et al. 2017, arXiv:1612.03242",
            config="t2i.plugins.models.stackgan.config:StackGANConfig",
            generator="t2i.plugins.models.stackgan.networks:build",
            stages="t2i.plugins.models.stackgan.training:stages",
            weights="t2i.plugins.models.stackgan.weights:load",
            family="one-shot",
            presets=("tiny", "coco", "cub", "shapes"),
        )
    ]
