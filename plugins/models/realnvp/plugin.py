"""The model `realnvp`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `realnvp`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="realnvp",
            summary="A normalising flow of affine couplings over two scales; NICE is a setting",
            paper="Dinh et al. 2017, arXiv:1605.08803; Dinh et al. 2015, arXiv:1410.8516 (NICE)",
            family="flow",
            presets=("tiny", "cifar", "nice", "shapes"),
            config="t2i.plugins.models.realnvp.config:RealNVPConfig",
            generator="t2i.plugins.models.realnvp.networks:build",
            stages="t2i.plugins.models.realnvp.training:stages",
        )
    ]
