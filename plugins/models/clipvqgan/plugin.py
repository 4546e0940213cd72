"""The model `clipvqgan`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `clipvqgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="clipvqgan",
            summary="CLIP-guided VQGAN: each image is found by optimisation, nothing is trained",
            paper="Crowson et al. 2022, arXiv:2204.08583",
            family="optimised",
            presets=("tiny", "paper", "paper512", "mse", "shapes"),
            config="t2i.plugins.models.clipvqgan.config:ClipVQGANConfig",
            generator="t2i.plugins.models.clipvqgan.networks:build",
            stages="t2i.plugins.models.clipvqgan.training:stages",
        )
    ]
