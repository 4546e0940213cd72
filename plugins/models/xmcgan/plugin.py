"""XMC-GAN: a one-stage GAN with attentional self-modulation and contrastive losses."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, ModelSpec


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the model `xmcgan`.

    Returns:
        Its specification.
    """
    return [
        ModelSpec(
            name="xmcgan",
            summary=(
                "One-stage GAN: attentional self-modulation, contrastive losses of words with "
                "regions, sentences with images, images with images"
            ),
            paper="Zhang et al. 2021, arXiv:2101.04702",
            config="t2i.plugins.models.xmcgan.config:XMCGANConfig",
            generator="t2i.plugins.models.xmcgan.networks:build",
            stages="t2i.plugins.models.xmcgan.training:stages",
            helpers="t2i.plugins.models.xmcgan.image_nets:helpers",
            family="one-shot",
            presets=("tiny", "coco", "coco-256", "shapes"),
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `resnet50`, the frozen image network of the presets of COCO.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="resnet50",
            summary="ResNet-50 on ImageNet, torchvision's first weights, for XMC-GAN's training",
            licence="BSD-3-Clause",
            licence_url="https://github.com/pytorch/vision/blob/main/LICENSE",
            hub=(HubFiles(repository="timm/resnet50.tv_in1k"),),
        )
    ]
