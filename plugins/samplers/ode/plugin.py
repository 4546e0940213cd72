"""The sampler `ode`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `ode`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="ode",
            summary="The probability flow by an adaptive solver; can be inverted",
            config="t2i.plugins.samplers.ode.config:ODEConfig",
            build="t2i.plugins.samplers.ode.sampler:ODESampler",
            families=("diffusion",),
        )
    ]
