"""A small frozen network whose features FID, KID, precision and recall compare for `shapes`.

`train_features.py` trained it to recognise what is in each of the nine cells of an image, and how
blurred and noisy the image is. So its features hold what matters in such images, and how clean they
are.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import T2IError
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.plugins.datasets.shapes.config import FeaturesConfig

WEIGHTS = Path(__file__).with_name("features.safetensors")
WEIGHTS_SHA256 = "d6b00b3a04cad822ed5d325d25e71e03e7ce32f602acb391bbd467e03ec7cd29"
INPUT_SIZE = 32
DIM = 96


class ShapesFeatures(FeatureExtractor):
    """A small convolutional network with features float32 (B, 96).

    Images of other sizes are averaged to 32x32 by area.
    """

    name = "shapes-cnn"
    weights_sha256 = WEIGHTS_SHA256
    dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(96, 96, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(96 * 4 * 4, DIM),
        )

    def forward(self, images: Tensor) -> Tensor:
        images = images.float() / 127.5 - 1
        if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            images = F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="area")
        features: Tensor = self.body(images)
        return features


def load() -> ShapesFeatures:
    """Load the frozen network with the weights that the package ships.

    Returns:
        The network.

    Raises:
        T2IError: The file of weights is missing or changed.
    """
    network = ShapesFeatures()
    network.load_state_dict(_weights())
    return network.eval().requires_grad_(False)


def _weights() -> Mapping[str, Tensor]:
    """Read the weights, which are stored as float16, and return them as float32."""
    try:
        data = WEIGHTS.read_bytes()
    except OSError as error:
        raise T2IError(
            f"{WEIGHTS}: cannot be read ({error.strerror}): install t2i-zoo again"
        ) from None
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise T2IError(
            f"{WEIGHTS}: is not the file that t2i ships (SHA-256 differs): install t2i-zoo again"
        )
    return {name: tensor.to(torch.float32) for name, tensor in load_safetensors(data).items()}


def build(config: FeaturesConfig) -> ShapesFeatures:
    """Build the feature extractor `shapes`.

    Args:
        config: Ignored; there are no settings.

    Returns:
        The extractor.

    Raises:
        T2IError: The file of weights is missing or changed.
    """
    return load()
