"""Latent diffusion: the model `ldm`, and the download of its autoencoder."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `ldm`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="ldm",
            summary=(
                "Latent diffusion: an autoencoder, then a text-conditional U-Net on its latents"
            ),
            family="diffusion",
            paper="Rombach et al. 2022, arXiv:2112.10752",
            config="t2i.plugins.models.ldm.config:LDMConfig",
            presets=("tiny", "coco", "thesis", "shapes"),
            generator="t2i.plugins.models.ldm.networks:generator_of",
            stages="t2i.plugins.models.ldm.training:stages",
            weights="t2i.plugins.models.ldm.folders:weights",
            open_pretrained="t2i.plugins.models.ldm.folders:open_pretrained",
            opens=(
                "folders of diffusers' StableDiffusionPipeline, StableDiffusionXLPipeline, "
                "StableDiffusion3Pipeline and PixArtAlphaPipeline, and single .safetensors files "
                "of Stable Diffusion 1.x and 2.x"
            ),
            open_settings=("config", "vae", "sizes"),
            export="t2i.plugins.models.ldm.exporting:export",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `vae`, the pretrained autoencoder.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="vae",
            summary=(
                "The autoencoder of ldm's presets coco and thesis (Stable Diffusion's, fine-tuned)"
            ),
            licence="MIT",
            licence_url="https://huggingface.co/stabilityai/sd-vae-ft-mse",
            hub=(HubFiles(repository="stabilityai/sd-vae-ft-mse"),),
        )
    ]
