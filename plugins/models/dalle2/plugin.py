"""The model `dalle2`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `dalle2`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="dalle2",
            summary="unCLIP: a prior draws CLIP's embedding of an image, a decoder the image",
            family="cascade",
            paper="Ramesh et al. 2022, arXiv:2204.06125",
            config="t2i.plugins.models.dalle2.config:Dalle2Config",
            presets=("tiny", "shapes", "paper", "karlo"),
            generator="t2i.plugins.models.dalle2.networks:build",
            stages="t2i.plugins.models.dalle2.training:stages",
            open_pretrained="t2i.plugins.models.dalle2.folders:open_pretrained",
            opens="folders of Karlo (diffusers' UnCLIPPipeline)",
        )
    ]
