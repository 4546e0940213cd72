"""Latent diffusion: the model `ldm`, and the download of its autoencoder."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, HubFiles, ModelSpec


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
            networks="t2i.plugins.models.ldm.lora:networks",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the downloads `vae`, the pretrained autoencoder, and `lpips`, the perceptual loss.

    Returns:
        Their specifications.
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
        ),
        DownloadSpec(
            name="lpips",
            summary="LPIPS, the perceptual loss of autoencoders: VGG16 and its linear weights",
            licence="BSD-2-Clause (LPIPS), BSD-3-Clause (torchvision's VGG16)",
            licence_url="https://github.com/richzhang/PerceptualSimilarity/blob/master/LICENSE",
            files=(
                DownloadFile(
                    url="https://download.pytorch.org/models/vgg16-397923af.pth",
                    size=553_433_881,
                    checksum=(
                        "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
                    ),
                ),
                DownloadFile(
                    url=(
                        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
                        "lpips/weights/v0.1/vgg.pth"
                    ),
                    size=7289,
                    checksum=(
                        "sha256:a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
                    ),
                ),
            ),
        ),
    ]
