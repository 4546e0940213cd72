"""The sampler `autoregressive`, of models that generate one token after the other."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `autoregressive`, the default of its family.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            default=True,
            name="autoregressive",
            summary=(
                "Token by token, each given those before it; temperature, top-k, top-p, guidance"
            ),
            config="t2i.plugins.common.tokens.config:TokenSamplerConfig",
            build="t2i.plugins.samplers.autoregressive.sampler:AutoregressiveSampler",
            families=("autoregressive",),
        )
    ]
