"""The sampler `ddpm`: DDPM's ancestral sampling."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `ddpm`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="ddpm",
            summary="Ancestral sampling, by default over all steps of the schedule",
            config="t2i.plugins.samplers.ancestral.config:DDPMSamplerConfig",
            build="t2i.plugins.samplers.ancestral.sampler:DDPMSampler",
            families=("diffusion",),
        )
    ]
