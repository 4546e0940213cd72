"""The sampler `ddim`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    """Declare the sampler `ddim`, the default of diffusion models.

    Returns:
        Its specification.
    """
    return [
        SamplerSpec(
            name="ddim",
            summary=(
                "Few steps along an implicit chain; eta 0 deterministic, eta 1 as random as ddpm"
            ),
            config="t2i.plugins.samplers.ddim.config:DDIMConfig",
            build="t2i.plugins.samplers.ddim.sampler:DDIMSampler",
            families=("diffusion",),
            default=True,
        )
    ]
