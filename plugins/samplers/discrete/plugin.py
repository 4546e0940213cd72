"""The sampler `discrete`, of discrete diffusion models."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `discrete`, the default of discrete diffusion models.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="discrete",
            summary=(
                "All tokens at once, through the exact posterior of masks and replacements, in any "
                "number of steps"
            ),
            config="t2i.plugins.samplers.discrete.config:DiscreteConfig",
            build="t2i.plugins.samplers.discrete.sampler:DiscreteSampler",
            families=("discrete-diffusion",),
        )
    ]
