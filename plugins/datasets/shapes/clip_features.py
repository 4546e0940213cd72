"""The features `shapes-clip`: both halves of the tiny CLIP that the data set ships.

They tell how well an image of shapes fits a caption. The benchmark does not score with them,
because every preset `shapes` is trained with the text half.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.interfaces.text import TextEncoder
from t2i.core.models.weights import weights_hash
from t2i.core.registry.tables import registry
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.datasets.shapes.config import ClipFeaturesConfig

WEIGHTS = "shapes-clip"
"""Name of the weights that the data set ships."""


class ShapesClipFeatures(FeatureExtractor):
    """Vectors of images and captions, float32 (B, 128), not of unit length.

    Images of other sizes are averaged to the network's own by area.

    Args:
        vision: The image half.
        encoder: The text half.
    """

    name = WEIGHTS
    networks = (WEIGHTS,)

    def __init__(self, vision: ClipVision, encoder: TextEncoder) -> None:
        super().__init__()
        self.vision, self.encoder = vision, encoder
        self.dim = encoder.shape.sentence
        self.weights_sha256 = weights_hash(self.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        x, side = images.float() / 127.5 - 1, self.vision.image_size
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="area")
        return self.vision.embedding(x)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        return self.encoder.encode(captions).sentence


def build(config: ClipFeaturesConfig) -> ShapesClipFeatures:
    """Build the feature extractor `shapes-clip`.

    Args:
        config: Ignored; there are no settings.

    Returns:
        The extractor.

    Raises:
        UserError: The files of weights are missing or changed.
    """
    choice = registry().encoders.choose("words", {"weights": WEIGHTS, "frozen": True}, "encoder")
    encoder: TextEncoder = registry().encoders.build(choice, None)
    vision = build_clip(
        ClipVisionConfig(weights=WEIGHTS, normalise="once"),
        encoder.shape.sentence,
        None,
        f"features '{WEIGHTS}'",
    )
    return ShapesClipFeatures(vision, encoder)
