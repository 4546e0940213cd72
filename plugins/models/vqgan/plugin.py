"""The model `vqgan`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `vqgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="vqgan",
            summary="VQGAN, then a transformer that reads the caption and predicts its tokens",
            paper="Esser et al. 2021, arXiv:2012.09841",
            family="autoregressive",
            presets=("tiny", "coco", "faces", "shapes"),
            config="t2i.plugins.models.vqgan.config:VQGANConfig",
            generator="t2i.plugins.common.causal.prior:build",
            stages="t2i.plugins.common.causal.prior:stages",
            weights="t2i.plugins.models.vqgan.weights:load",
        )
    ]
