"""DAMSM's image encoders, which map images to region features and a global code.

The paper's is torchvision's Inception-v3, frozen, with two trained linear maps. A small one serves
small images where no pretrained weights are available.

Source: Xu et al. 2018, section 3.2.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextShape
from t2i.core.models.weights import load_state
from t2i.plugins.common.text.config import ImageEncoderConfig
from t2i.plugins.common.text.damsm import ImageFeatures
from t2i.plugins.common.weights.legacy import (
    counted,
    read_legacy,
    renamed,
    state_dict,
    without_prefix,
)

SIDE = 299  # height and width of Inception-v3's training images, in pixels
URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
STEM = [
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "maxpool1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "maxpool2",
]
REGION_LAYERS = [
    *STEM,
    *(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
]
CODE_LAYERS = ["Mixed_7a", "Mixed_7b", "Mixed_7c", "avgpool"]
UNUSED = re.compile(r"^(AuxLogits|fc)\.")  # the classifiers


class InceptionEncoder(nn.Module):
    """Inception-v3 with two trained linear maps, the paper's image encoder.

    It maps images (B, 3, H, H) in [-1, 1] to `ImageFeatures`: the last 17x17 map of 768 channels
    gives the regions, the 2048 pooled channels give the code. Only the two linear maps are trained.
    The trunk stays in evaluation mode, and so keeps its running averages, even when `train()` is
    called.

    Args:
        text: Widths of the text encoder's words and sentences.
    """

    def __init__(self, text: TextShape) -> None:
        super().__init__()
        # The import takes two seconds, and other encoders do not need it.
        from torchvision.models import Inception3

        whole: Any = Inception3(aux_logits=False, transform_input=False, init_weights=False)
        self.region_trunk = nn.Sequential(
            OrderedDict((name, getattr(whole, name)) for name in REGION_LAYERS)
        )
        self.code_trunk = nn.Sequential(
            OrderedDict((name, getattr(whole, name)) for name in CODE_LAYERS)
        )
        self.to_regions = nn.Conv2d(768, text.words, 1, bias=False)
        self.to_code = nn.Linear(2048, text.sentence)
        for head in (self.to_regions, self.to_code):
            nn.init.uniform_(head.weight, -0.1, 0.1)
        for trunk in (self.region_trunk, self.code_trunk):
            trunk.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, except that the trunk stays in evaluation mode.

        Args:
            mode: True for training mode.
        """
        super().train(mode)
        self.region_trunk.eval()
        self.code_trunk.eval()
        return self

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode images.

        Args:
            images: Images, float (B, 3, H, H) in [-1, 1]; they are resized to 299 x 299.

        Returns:
            Features of 17 x 17 regions, and the code.
        """
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        features = self.region_trunk(x)
        return ImageFeatures(
            self.to_regions(features).flatten(2), self.to_code(self.code_trunk(features).flatten(1))
        )


class SmallImageEncoder(nn.Module):
    """A few convolutions, for small images.

    The regions are the places of the last 4x4 map. The code is a linear map of that whole map
    rather than of its mean, because sentences say where things are.

    Args:
        image_size: Height and width of the images, a power of two, at least 8.
        width: Channels of the first layer; deeper layers have up to 4 times as many.
        text: Widths of the text encoder's words and sentences.
    """

    def __init__(self, image_size: int, width: int, text: TextShape) -> None:
        super().__init__()
        widths = [width * min(2**i, 4) for i in range((image_size // 4).bit_length())]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for c_in, c_out in pairwise(widths):
            layers += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1),
                nn.GroupNorm(4, c_out),
                nn.LeakyReLU(0.2),
            ]
        self.trunk = nn.Sequential(*layers)
        self.to_regions = nn.Conv2d(widths[-1], text.words, 1, bias=False)
        self.to_code = nn.Linear(16 * widths[-1], text.sentence)

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode images.

        Args:
            images: Images, float (B, 3, H, H) in [-1, 1].

        Returns:
            Features of 16 regions, and the code.
        """
        features = self.trunk(images)
        return ImageFeatures(
            self.to_regions(features).flatten(2), self.to_code(features.flatten(1))
        )


def image_encoder(config: ImageEncoderConfig, image_size: int, text: TextShape) -> nn.Module | None:
    """Build the image encoder that the settings describe, with random weights.

    Args:
        config: Kind and width of the encoder.
        image_size: Height and width of the images, in pixels.
        text: Widths of the text encoder's words and sentences.

    Returns:
        The encoder, or None for kind "none".
    """
    if config.kind == "none":
        return None
    return (
        InceptionEncoder(text)
        if config.kind == "inception"
        else SmallImageEncoder(image_size, config.width, text)
    )


# --- weights --------------------------------------------------------------------------------------


def load_image_encoder(encoder: nn.Module, config: ImageEncoderConfig) -> None:
    """Load the weights that the settings name, if any, into the encoder.

    Args:
        encoder: The encoder; it is changed in place.
        config: Its settings. `weights` takes precedence over `inception`.

    Raises:
        UserError: A file is missing, damaged or does not fit.
    """
    if config.weights:
        load_authors(encoder, Path(config.weights))
    elif config.inception:
        load_trunk(encoder, Path(config.inception))


def check_source(config: ImageEncoderConfig, what: str) -> None:
    """Check that there is an image encoder to train DAMSM with, and weights for Inception-v3.

    Args:
        config: Settings of the image encoder.
        what: Name of the model, for errors.

    Raises:
        UserError: The image encoder is "none", or it is "inception" without weights.
    """
    if config.kind == "none":
        raise UserError(
            f"{what}: image_encoder.kind = none leaves nothing to train the text encoder with: set "
            "it to inception or small, or give a text encoder that is frozen"
        )
    if config.kind == "inception" and not (config.inception or config.weights):
        raise UserError(
            f"{what}: DAMSM's image encoder needs Inception-v3: give --set "
            f"image_encoder.inception=FILE, torchvision's {Path(URL).name} ({URL}), or --set "
            "image_encoder.weights=FILE, the authors' image_encoder*.pth"
        )


def load_trunk(encoder: nn.Module, path: Path) -> None:
    """Load torchvision's Inception-v3 into the trunk, without its classifiers.

    torchvision's file names contain the start of the file's SHA-256, which is checked.

    Args:
        encoder: The encoder; its trunk is changed in place.
        path: The file.

    Raises:
        UserError: The file is missing, damaged or does not fit.
    """
    _check_name(path)
    heads = {
        name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("to_")
    }
    state = {
        name: t
        for name, t in state_dict(read_legacy(path), str(path)).items()
        if not UNUSED.match(name)
    }
    load_state(encoder, counted(encoder, {**_trunk_names(state), **heads}), f"weights {path}")


def load_authors(encoder: nn.Module, path: Path) -> None:
    """Load the authors' image_encoder*.pth.

    Args:
        encoder: The encoder; it is changed in place.
        path: The file.

    Raises:
        UserError: The file is missing, damaged or does not fit.
    """
    state = authors_state(state_dict(read_legacy(path), str(path)))
    load_state(encoder, counted(encoder, state), f"weights {path}")


def authors_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' CNN_ENCODER as `InceptionEncoder` names them.

    Args:
        state: The authors' state dict.

    Returns:
        The same tensors under our names.
    """
    return renamed(
        _trunk_names(state), [(r"^emb_features\.", "to_regions."), (r"^emb_cnn_code\.", "to_code.")]
    )


def _trunk_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rules = [(r"^(Mixed_7.*)", r"code_trunk.\1"), (r"^((Conv2d|Mixed)_.*)", r"region_trunk.\1")]
    return renamed(without_prefix(state, "module."), rules)


def _check_name(path: Path) -> None:
    """Check a file against the SHA-256 in its name, if its name contains one."""
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if named is None:
        return
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"weights {path}: {error.strerror}; get it from {URL}") from None
    if not found.startswith(named[1]):
        raise UserError(
            f"weights {path}: damaged: its SHA-256 begins with {found[:8]}; download it again from "
            f"{URL}"
        )
