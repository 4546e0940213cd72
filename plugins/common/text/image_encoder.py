"""DAMSM's image encoders, which map images to region features and a global code.

The paper's encoder is Inception-v3 (here torchvision's), frozen, with two trained linear maps. The
small encoder is for small images and for use without pretrained weights.

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
from t2i.core.io.files import check_regular
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

SIDE = 299  # height and width, in pixels, that Inception-v3 was trained at
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
UNUSED = re.compile(r"^(AuxLogits|fc)\.")  # tensors of the classifiers


class InceptionEncoder(nn.Module):
    """Inception-v3 with two trained linear maps.

    The first maps the last 17x17 map (768 channels) to region features, the second maps the pooled
    2048 channels to the code. The rest, the trunk, is frozen: it always uses its running averages,
    also in training mode.

    Args:
        text: Widths of the words and sentences that the features are compared with.
    """

    def __init__(self, text: TextShape) -> None:
        super().__init__()
        # Imported here because it takes two seconds, which other encoders need not spend.
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
        """Set the mode of the linear maps; the trunk stays in evaluation mode.

        Args:
            mode: Whether to set training mode (True) or evaluation mode (False).

        Returns:
            The encoder itself.
        """
        super().train(mode)
        self.region_trunk.eval()
        self.code_trunk.eval()
        return self

    def forward(self, images: Tensor) -> ImageFeatures:
        """Compute the features of images.

        Args:
            images: Images (B, 3, H, H) in [-1, 1]. They are resized to 299 pixels.

        Returns:
            289 regions (17x17), (B, Dw, 289), and the code (B, D).
        """
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        features = self.region_trunk(x)
        return ImageFeatures(
            self.to_regions(features).flatten(2), self.to_code(self.code_trunk(features).flatten(1))
        )


class SmallImageEncoder(nn.Module):
    """A few convolutions for small images.

    The regions are the places of the last 4x4 map. The code is a linear map of all of it, without
    averaging, because sentences say where things are.

    Args:
        image_size: Height and width of the images in pixels, a power of two, at least 8.
        width: Channels of the first layer, a multiple of 4. Later layers have up to four times as
            many.
        text: Widths of the words and sentences that the features are compared with.
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
        """Compute the features of images.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].

        Returns:
            16 regions (4x4), (B, Dw, 16), and the code (B, D).
        """
        features = self.trunk(images)
        return ImageFeatures(
            self.to_regions(features).flatten(2), self.to_code(features.flatten(1))
        )


def image_encoder(config: ImageEncoderConfig, image_size: int, text: TextShape) -> nn.Module | None:
    """Build the image encoder that the settings describe, with random weights.

    Args:
        config: Settings of the encoder.
        image_size: Height and width of the images in pixels. Only the small encoder depends on it.
        text: Widths of the words and sentences that the features are compared with.

    Returns:
        The encoder, a network from images (B, 3, H, H) to `ImageFeatures`. None if `config.kind` is
        "none".
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
    """Load the file of weights that the settings name, if any.

    Args:
        encoder: The encoder that `image_encoder` built from these settings.
        config: Settings of the encoder. `weights` goes before `inception`.

    Raises:
        UserError: The file cannot be read, is damaged or does not fit.
    """
    if config.weights:
        load_authors(encoder, Path(config.weights))
    elif config.inception:
        load_trunk(encoder, Path(config.inception))


def check_source(config: ImageEncoderConfig, what: str) -> None:
    """Check that there is an image encoder with weights to train DAMSM with.

    Args:
        config: Settings of the image encoder.
        what: The model, as errors name it.

    Raises:
        UserError: The settings have no image encoder, or an Inception-v3 without a file of weights.
            The message says which settings to give.
    """
    if config.kind == "none":
        raise UserError(
            f"{what}: image_encoder.kind = none leaves nothing to train the text encoder with: set "
            f"it to inception or "
            "small, or give a text encoder that is frozen"
        )
    if config.kind == "inception" and not (config.inception or config.weights):
        raise UserError(
            f"{what}: DAMSM's image encoder needs Inception-v3: give --set "
            f"image_encoder.inception=FILE, torchvision's "
            f"{Path(URL).name} ({URL}), or --set image_encoder.weights=FILE, the authors' "
            f"image_encoder*.pth"
        )


def load_trunk(encoder: nn.Module, path: Path) -> None:
    """Load torchvision's Inception-v3 into the trunk, without its classifiers.

    torchvision puts the beginning of the file's SHA-256 into its name; this is checked if the name
    has it.

    Args:
        encoder: An `InceptionEncoder`. Its linear maps keep their weights.
        path: The file of weights.

    Raises:
        UserError: The file cannot be read, is damaged or does not fit.
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
        encoder: An `InceptionEncoder`.
        path: The file of weights.

    Raises:
        UserError: The file cannot be read or does not fit.
    """
    state = authors_state(state_dict(read_legacy(path), str(path)))
    load_state(encoder, counted(encoder, state), f"weights {path}")


def authors_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' CNN_ENCODER to those of `InceptionEncoder`.

    Args:
        state: The authors' state dict. A prefix "module." is removed.

    Returns:
        The state dict of `InceptionEncoder`.
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
    check_regular(path, "weights")
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
