"""The sampler `maskgit`: MaskGIT's parallel decoding."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `maskgit`.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="maskgit",
            summary=(
                "All masked tokens at once; the most confident are kept, the others masked again"
            ),
            config="t2i.plugins.samplers.maskgit.config:MaskGITConfig",
            build="t2i.plugins.samplers.maskgit.sampler:MaskGITSampler",
            families=("discrete-diffusion",),
        )
    ]
