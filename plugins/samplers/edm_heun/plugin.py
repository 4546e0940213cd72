"""The sampler `edm-heun`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `edm-heun`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="edm-heun",
            summary="Heun's steps in sigma / alpha, with churn (Karras et al. 2022)",
            config="t2i.plugins.samplers.edm_heun.config:EDMHeunConfig",
            build="t2i.plugins.samplers.edm_heun.sampler:EDMHeunSampler",
            families=("diffusion",),
        )
    ]
