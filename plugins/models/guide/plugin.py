"""The model `guide`."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `guide`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="guide",
            summary="A CLIP or classifier of noisy images, which steers diffusion models",
            family="guide",
            paper="Dhariwal & Nichol 2021, arXiv:2105.05233",
            config="t2i.plugins.models.guide.config:GuideConfig",
            presets=("tiny", "shapes", "adm64", "adm128", "adm256", "adm512"),
            generator="t2i.plugins.models.guide.networks:NoisyClip",
            stages="t2i.plugins.models.guide.training:stages",
            weights="t2i.plugins.models.guide.weights:load_weights",
        )
    ]
