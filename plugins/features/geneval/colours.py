"""Names the colours of detected objects by a CLIP.

Source: Ghosh et al. 2023, section 3 and the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from t2i.plugins.common.clip.features import ClipSpace
from t2i.plugins.common.clip.tokenizer import FOLDER, load_tokenizer
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.images.resize import cropped
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import check_vocabulary
from t2i.plugins.features.geneval.config import GenevalFeaturesConfig
from t2i.plugins.features.geneval.prompts import COLOURS
from t2i.plugins.features.geneval.rules import Found

TEMPLATES = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
GREY = 153
"""Value of all channels of the pixels around an object: the colour #999."""


class ColourClip(ClipSpace):
    """A CLIP that names the colours of objects.

    Args:
        config: Which CLIP it is.

    Raises:
        UserError: The weights cannot be found, or are of another network.
    """

    def __init__(self, config: GenevalFeaturesConfig) -> None:
        what = "features 'geneval'"
        remedy = f"set clip to {FOLDER}"
        wanted = Wanted(what, "clip", config.clip, config.clip_revision, FOLDER, remedy)
        network: Any = load_clip(CLIPModel, wanted)
        tokenizer = load_tokenizer(wanted)
        check_vocabulary(what, network.config.text_config.vocab_size, tokenizer, "set its clip")
        super().__init__(network, tokenizer)
        self._said: dict[str, Tensor] = {}

    def resized(self, images: Tensor) -> Tensor:
        return cropped(images, self.side, round)  # as open_clip, which the authors use

    def of_colours(self, name: str) -> Tensor:
        """Compute a vector for each colour of a class of objects.

        It is the mean of the unit vectors of `TEMPLATES`, brought to unit length.

        Args:
            name: The class.

        Returns:
            Vectors, float32 (colours, D).
        """
        if name not in self._said:
            texts = [t.format(colour=colour, name=name) for colour in COLOURS for t in TEMPLATES]
            each = F.normalize(self.encode_text(texts), dim=-1)
            means = each.view(len(COLOURS), len(TEMPLATES), -1).mean(1)
            self._said[name] = F.normalize(means, dim=-1)
        return self._said[name]

    def names(self, image: Tensor, found: Sequence[Found], name: str) -> list[str]:
        """Name the colours of objects in an image.

        Args:
            image: Image, uint8 (3, H, W).
            found: The objects.
            name: Their class.

        Returns:
            One of `COLOURS` for each object.
        """
        if not found:
            return []
        seen = torch.cat([self(alone(image, one)[None]) for one in found])
        nearest = (F.normalize(seen, dim=-1) @ self.of_colours(name).T).argmax(1)
        return [COLOURS[place] for place in nearest.tolist()]


def alone(image: Tensor, found: Found) -> Tensor:
    """Cut an object out of an image, on grey.

    Args:
        image: Image, uint8 (3, H, W).
        found: The object.

    Returns:
        Its box, uint8 (3, h, w), with `GREY` outside its mask.
    """
    left, top, right, bottom = found.box
    return torch.where(found.mask, image, GREY)[:, top:bottom, left:right]
