"""The model `vqvae`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `vqvae`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="vqvae",
            summary="VQ-VAE, then a transformer that reads the caption and predicts its tokens",
            paper="van den Oord et al. 2017, arXiv:1711.00937",
            family="autoregressive",
            presets=("tiny", "coco", "shapes"),
            config="t2i.plugins.models.vqvae.config:VQVAEConfig",
            generator="t2i.plugins.common.causal.prior:build",
            stages="t2i.plugins.common.causal.prior:stages",
        )
    ]
