"""The model `aligndraw`: a recurrent VAE that attends to words and writes on a canvas."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `aligndraw`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="aligndraw",
            summary="Recurrent VAE: attends to words, reads and writes through Gaussian filters",
            family="one-shot",
            paper="Mansimov et al. 2016, arXiv:1511.02793",
            config="t2i.plugins.models.aligndraw.config:AlignDRAWConfig",
            presets=("tiny", "coco", "mnist", "shapes"),
            generator="t2i.plugins.models.aligndraw.networks:build",
            stages="t2i.plugins.models.aligndraw.training:stages",
        )
    ]
