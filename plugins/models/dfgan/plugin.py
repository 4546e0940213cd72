"""DF-GAN: a one-stage GAN whose generator fuses text into its features block by block."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `dfgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="dfgan",
            summary=(
                "One-stage GAN: deep text-image fusion, matching-aware gradient penalty, "
                "one-way output"
            ),
            paper="Tao et al. 2022, arXiv:2008.05865",
            config="t2i.plugins.models.dfgan.config:DFGANConfig",
            generator="t2i.plugins.models.dfgan.networks:build",
            stages="t2i.plugins.models.dfgan.training:stages",
            weights="t2i.plugins.models.dfgan.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "coco", "shapes"),
        )
    ]
