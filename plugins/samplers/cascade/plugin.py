"""The sampler `cascade`, of models that are several generators in a row."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `cascade`, the default of its family.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="cascade",
            summary="Each part in turn with its own sampler, given the output of the part before",
            config="t2i.plugins.samplers.cascade.config:CascadeConfig",
            build="t2i.plugins.samplers.cascade.sampler:CascadeSampler",
            families=("cascade",),
        )
    ]
