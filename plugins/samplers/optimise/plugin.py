"""The sampler of models that optimise each image."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `optimise`, the default of its family.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="optimise",
            summary="Adam maximises the score of the latents",
            config="t2i.plugins.samplers.optimise.config:OptimiseConfig",
            build="t2i.plugins.samplers.optimise.sampler:OptimiseSampler",
            families=("optimised",),
        )
    ]
