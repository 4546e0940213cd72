"""The sampler `pc`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `pc`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="pc",
            summary="Predictor and Langevin corrector of the reverse equation (Song et al. 2021)",
            config="t2i.plugins.samplers.pc.config:PCConfig",
            build="t2i.plugins.samplers.pc.sampler:PCSampler",
            families=("diffusion",),
        )
    ]
