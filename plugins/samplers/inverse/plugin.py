"""The sampler `inverse`, of normalising flows."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `inverse`, the default of flows.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="inverse",
            summary="Follow a flow from noise to an image, at a temperature",
            config="t2i.plugins.samplers.inverse.config:InverseConfig",
            build="t2i.plugins.samplers.inverse.sampler:InverseSampler",
            families=("flow",),
        )
    ]
