"""GALIP: a GAN whose generator and discriminator both work on a frozen CLIP."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="galip",
            summary="One-stage GAN about a frozen CLIP: prompted in the generator, tapped in the discriminator",
            paper="Tao et al. 2023, GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis",
            config="t2i.plugins.models.galip.config:GALIPConfig",
            generator="t2i.plugins.models.galip.networks:build",
            stages="t2i.plugins.models.galip.training:stages",
            family="one-shot",
            presets=("tiny", "cub", "coco", "thesis"),
            weights="t2i.plugins.models.galip.weights:load_weights",
        )
    ]
