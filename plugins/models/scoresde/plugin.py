"""The model `scoresde`: score-based models through stochastic differential equations."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `scoresde`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="scoresde",
            summary="Score-based diffusion on pixels through stochastic differential equations",
            family="diffusion",
            paper="Song et al. 2021, arXiv:2011.13456",
            config="t2i.plugins.models.scoresde.config:ScoreSDEConfig",
            presets=(
                "tiny", "cifar-ve", "cifar-vp", "cifar-sub-vp", "cifar-ve-deep", "cifar-vp-deep",
                "cifar-sub-vp-deep", "ffhq256", "shapes",
            ),
            generator="t2i.plugins.models.scoresde.networks:build",
            stages="t2i.plugins.models.scoresde.training:stages",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
            weights="t2i.plugins.models.scoresde.weights:weights",
            open_pretrained="t2i.plugins.models.scoresde.folders:open_pretrained",
            opens="folders of diffusers' ScoreSdeVePipeline",
        )
    ]  # fmt: skip
