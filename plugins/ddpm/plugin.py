"""DDPM: the sampler."""

from __future__ import annotations

from t2i.core.hooks import hookimpl
from t2i.core.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    return [
        SamplerSpec(
            name="ddpm",
            summary="The ancestral chain, by default over all steps of the schedule",
            config="t2i.plugins.ddpm.config:DDPMSamplerConfig",
            build="t2i.plugins.ddpm.sampler:DDPMSampler",
            families=("diffusion",),
        )
    ]
