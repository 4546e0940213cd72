"""The model `vae`: text-conditional variational autoencoders, plain and hierarchical."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `vae`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="vae",
            summary="Text-conditional variational autoencoder: one vector, or VDVAE's hierarchy",
            family="one-shot",
            paper=(
                "Sohn et al. 2015, Learning Structured Output Representation using Deep "
                "Conditional Generative Models; Child 2021, arXiv:2011.10650"
            ),
            config="t2i.plugins.models.vae.config:VAEConfig",
            presets=("tiny", "deep", "imagenet32", "imagenet64", "plain", "shapes"),
            generator="t2i.plugins.models.vae.networks:build",
            stages="t2i.plugins.models.vae.training:stages",
            likelihood="t2i.plugins.models.vae.likelihood:vae_likelihood",
            weights="t2i.plugins.models.vae.weights:load",
        )
    ]
