"""StyleGAN2 with text in its mapping, and StyleGAN-T."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `stylegan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="stylegan",
            summary="Style-based GANs: StyleGAN2 with text in its mapping, and StyleGAN-T",
            paper="Karras et al. 2020, arXiv:1912.04958; Sauer et al. 2023, arXiv:2301.09515",
            config="t2i.plugins.models.stylegan.config:StyleGANConfig",
            generator="t2i.plugins.models.stylegan.networks:build",
            stages="t2i.plugins.models.stylegan.training:stages",
            weights="t2i.plugins.models.stylegan.weights:load",
            family="one-shot",
            presets=("tiny", "cub", "coco", "t-lite64", "t-full64", "t-full256", "shapes"),
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `dino-vit-s-16`.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="dino-vit-s-16",
            summary="DINO ViT-S/16 (timm), the frozen network of StyleGAN-T's discriminator",
            licence="Apache-2.0",
            licence_url="https://github.com/facebookresearch/dino/blob/main/LICENSE",
            hub=(HubFiles(repository="timm/vit_small_patch16_224.dino"),),
        )
    ]
