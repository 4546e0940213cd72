"""The sampler `flow-euler`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `flow-euler`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="flow-euler",
            summary="Steps along the straight path of flow matching, of order 1 or 2",
            config="t2i.plugins.samplers.flow_euler.config:FlowEulerConfig",
            build="t2i.plugins.samplers.flow_euler.sampler:FlowEulerSampler",
            families=("diffusion",),
        )
    ]
