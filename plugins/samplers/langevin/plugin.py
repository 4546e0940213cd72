"""The sampler `langevin`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `langevin`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="langevin",
            summary="Annealed Langevin dynamics: several noisy steps at each noise level",
            config="t2i.plugins.samplers.langevin.config:LangevinConfig",
            build="t2i.plugins.samplers.langevin.sampler:LangevinSampler",
            families=("diffusion",),
        )
    ]
