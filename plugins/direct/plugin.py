"""One-shot sampling."""

from t2i.core.hooks import hookimpl
from t2i.core.specs import SamplerSpec


@hookimpl
def t2i_samplers() -> list[SamplerSpec]:
    return [
        SamplerSpec(
            name="direct",
            summary="One call of a one-shot generator",
            config="t2i.core.sampler:SamplerConfig",
            build="t2i.plugins.direct.sampler:DirectSampler",
            families=("one-shot",),
        )
    ]
