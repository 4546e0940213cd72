"""The model `ncsn`: noise conditional score networks."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `ncsn`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="ncsn",
            summary="Score matching at many noise levels: a RefineNet on pixels (NCSN, NCSNv2)",
            family="diffusion",
            paper="Song & Ermon 2019, arXiv:1907.05600; Song & Ermon 2020, arXiv:2006.09011",
            config="t2i.plugins.models.ncsn.config:NCSNConfig",
            presets=("tiny", "cifar-v1", "cifar-v2", "celeba64", "shapes"),
            generator="t2i.plugins.models.ncsn.networks:NCSNGenerator",
            stages="t2i.plugins.models.ncsn.training:stages",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
            weights="t2i.plugins.models.ncsn.weights:load",
        )
    ]
