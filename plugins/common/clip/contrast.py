"""Contrastive training of CLIP's image encoder with a text encoder."""

from __future__ import annotations

from torch import Tensor

from t2i.plugins.common.clip.vision import ClipVision
from t2i.plugins.common.text.contrastive import Contrast


class ClipMatcher(Contrast):
    """CLIP's contrastive objective: its image embeddings against sentence vectors.

    Args:
        clip: The image half of CLIP.
    """

    def __init__(self, clip: ClipVision) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> Tensor:
        """Embed images in the space that they share with sentences.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Embeddings, float (B, D), not normalised.
        """
        return self.clip.embedding(images)
