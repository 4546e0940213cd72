"""Latent diffusion."""

from __future__ import annotations

from t2i.core.hooks import hookimpl
from t2i.core.specs import ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="ldm",
            summary="Latent diffusion: an autoencoder, then a text-conditional U-Net on its latents",
            family="diffusion",
            paper="Rombach et al. 2022, arXiv:2112.10752",
            config="t2i.plugins.ldm.config:LDMConfig",
            presets=("tiny", "coco", "thesis"),
            generator="t2i.plugins.ldm.networks:LDMGenerator",
            stages="t2i.plugins.ldm.training:stages",
            weights="t2i.plugins.ldm.folders:weights",
            foreign="t2i.plugins.ldm.folders:foreign",
            opening=("config",),
            export="t2i.plugins.ldm.folders:export",
        )
    ]
