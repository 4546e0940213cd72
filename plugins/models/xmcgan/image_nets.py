"""The frozen image network whose vectors of generated and real images are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from t2i.core.interfaces.text import TextShape
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.clip.vision import ClipVision
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted, fetched_or, obtained
from t2i.plugins.models.xmcgan.config import ImageNetConfig, XMCGANConfig

WHAT = "model 'xmcgan'"
RESNET = "timm/resnet50.tv_in1k"
"""Name on the hub of torchvision's first weights of ResNet-50, in timm's layout."""

CLIP = "shapes-clip"
FILE = "model.safetensors"
SIDE = 224  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenResNet(nn.Module):
    """ResNet-50 on ImageNet, by its 1000 logits. It stays in evaluation mode.

    Attributes:
        mean: Mean of each colour channel, (3, 1, 1), for images in [0, 1].
        std: Standard deviation of each colour channel, (3, 1, 1), for images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        import timm  # takes seconds, which the other kinds need not spend

        self.network: Any = timm.create_model("resnet50", pretrained=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Do nothing: batch norm keeps its running statistics.

        Args:
            mode: Not used.

        Returns:
            The network itself.
        """
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the vectors of images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H). They are resized to 224 pixels.

        Returns:
            Vectors, float (B, 1000).
        """
        size = (SIDE, SIDE)
        x = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        vectors: Tensor = self.network(((x + 1) / 2 - self.mean) / self.std)
        return vectors


class FrozenCLIP(nn.Module):
    """The image half of a CLIP, by its image vectors.

    Args:
        clip: The network.
    """

    def __init__(self, clip: ClipVision) -> None:
        super().__init__()
        self.clip = clip
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the vectors of images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Vectors, float (B, D).
        """
        return self.clip.embedding(images)


def helpers(config: XMCGANConfig, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]:
    """Build the frozen image network.

    Args:
        config: The model's settings.
        text: Widths of the text features. They are not used.
        fresh: Whether to load ResNet-50's weights. A CLIP's are loaded in any case: its sizes are
            theirs.

    Returns:
        The network under the name "image_net". Empty if there is none, or if its loss has no
        weight.

    Raises:
        UserError: The weights cannot be found or do not fit.
    """
    if config.image_net.kind == "none" or not config.frozen_contrast:
        return {}
    if config.image_net.kind == "clip":
        return {"image_net": _clip(config.image_net)}
    network = FrozenResNet()
    if fresh:
        load_resnet(network, config.image_net)
    return {"image_net": network}


def load_resnet(network: FrozenResNet, config: ImageNetConfig) -> None:
    """Load the weights of ResNet-50.

    Args:
        network: The network.
        config: Settings of the network.

    Raises:
        UserError: The weights cannot be found or do not fit.
    """
    source = config.weights or fetched_or("resnet50", RESNET)
    folder = f"a folder with the {FILE} of timm's resnet50"
    remedy = f"'t2i fetch resnet50', or set image_net.weights to {folder}, or image_net.kind=none"

    def load(source: str, offline: bool) -> dict[str, Tensor]:
        place = Path(source)
        if place.is_dir():
            return load_tensors(place / FILE, WHAT)
        path = hf_hub_download(source, FILE, revision=config.revision, local_files_only=offline)
        return load_tensors(Path(path), WHAT)

    wanted = Wanted(WHAT, "image_net.weights", source, config.revision, folder, remedy)
    load_state(network.network, obtained(wanted, load), f"{WHAT}: image_net.weights = {source}")


def _clip(config: ImageNetConfig) -> FrozenCLIP:
    """Build CLIP's image half with its weights."""
    name = config.weights or CLIP
    folder = "a folder with the config.json and model.safetensors of a CLIP"
    wanted = Wanted(WHAT, "image_net.weights", name, config.revision, folder)
    settings = ClipVisionConfig(weights=name, normalise="once", resize="bicubic")
    return FrozenCLIP(ClipVision(settings, load_clip(CLIPVisionModelWithProjection, wanted)))
