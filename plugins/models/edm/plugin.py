"""The model `edm`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `edm`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="edm",
            summary="Diffusion whose network is scaled to unit variance at every noise level",
            family="diffusion",
            paper="Karras et al. 2022, arXiv:2206.00364",
            config="t2i.plugins.models.edm.config:EDMConfig",
            presets=("tiny", "cifar", "imagenet64", "shapes"),
            generator="t2i.plugins.models.edm.networks:EDMGenerator",
            stages="t2i.plugins.models.edm.training:stages",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
            weights="t2i.plugins.models.edm.weights:load_weights",
        )
    ]
