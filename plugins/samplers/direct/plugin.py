"""The sampler `direct`, of one-shot models."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `direct`, the default of one-shot models.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="direct",
            summary="One pass of a one-shot model (a GAN), with plain or truncated noise",
            config="t2i.plugins.samplers.direct.sampler:DirectConfig",
            build="t2i.plugins.samplers.direct.sampler:DirectSampler",
            families=("one-shot",),
        )
    ]
