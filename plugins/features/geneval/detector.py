"""GenEval's detector: a Mask2Former that finds objects of COCO's 80 classes, by transformers.

Source: Cheng et al. 2022. Sizes and scores are those of mmdet's configuration, which GenEval uses.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mask2FormerForUniversalSegmentation

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.plugins.common.images.resize import resized
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import load_network
from t2i.plugins.features.geneval.config import GenevalFeaturesConfig
from t2i.plugins.features.geneval.prompts import CLASSES
from t2i.plugins.features.geneval.rules import THRESHOLD, Box, Found

KIND = "mask2former"
PLACE = "a folder with the config.json and model.safetensors of a Mask2Former"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images in [0, 1]
WHOLE = 32  # pixels; sides of the network's input are multiples of it


class Detector(nn.Module):
    """A Mask2Former that finds objects in images.

    Args:
        config: Which network detects.

    Attributes:
        shorter: Length to which the shorter side of an image is brought, pixels.
        longer: Largest length of the longer side, pixels.
        mean: Mean of each colour channel, (3, 1, 1), for images in [0, 1].
        std: Standard deviation of each colour channel, (3, 1, 1), for images in [0, 1].

    Raises:
        UserError: The weights cannot be found, or are of another network.
    """

    mean: Tensor
    std: Tensor
    shorter, longer = 800, 1333

    def __init__(self, config: GenevalFeaturesConfig) -> None:
        super().__init__()
        wanted = Wanted(
            "features 'geneval'", "weights", config.weights, config.revision, PLACE,
            f"set weights to {PLACE}",
        )  # fmt: skip
        # The weight of the loss is no part of what detects.
        loaded: Any = load_network(
            Mask2FormerForUniversalSegmentation, wanted, "Mask2Former", _check,
            optional={"criterion.empty_weight"},
        )  # fmt: skip
        classes = loaded.class_predictor.out_features - 1
        if classes != len(CLASSES):
            raise UserError(
                f"features 'geneval': {config.weights} finds {classes} classes, not COCO's "
                f"{len(CLASSES)} kinds of objects: name an instance segmentation of COCO"
            )
        self.network = loaded.float()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[list[Found]]:
        """Find objects.

        Args:
            images: Images, uint8 (B, 3, H, W).

        Returns:
            The objects of each image that are more certain than `THRESHOLD`.
        """
        pixels, size = self.pixels(images)
        made = self.network(pixel_values=pixels)
        found = []
        # One image at a time: whole masks of 100 objects take memory.
        for classes, masks in zip(
            made.class_queries_logits, made.masks_queries_logits, strict=True
        ):
            large = _scaled(masks, tuple(pixels.shape[-2:]))[:, : size[0], : size[1]]
            found.append(objects(classes, _scaled(large, tuple(images.shape[-2:]))))
        return found

    def pixels(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Prepare images: resized, normalised, and padded at the right and the bottom.

        Args:
            images: Images, uint8 (B, 3, H, W).

        Returns:
            What the network reads, float (B, 3, H', W'), and the height and width of the images in
            it.
        """
        height, width = images.shape[-2:]
        scale = min(self.shorter / min(height, width), self.longer / max(height, width))
        size = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        pixels = (resized(images, size, "bilinear") - self.mean) / self.std
        right, below = (math.ceil(side / WHOLE) * WHOLE - side for side in (size[1], size[0]))
        return F.pad(pixels, (0, right, 0, below)), size


def _scaled(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize masks (Q, H, W)."""
    return F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]


def objects(classes: Tensor, masks: Tensor) -> list[Found]:
    """Convert the network's output for an image to objects.

    An object's score is the probability of its class, times the mean probability of the pixels in
    its mask.

    Args:
        classes: Logits of the classes of Q objects, float (Q, 81). The last class is none.
        masks: Logits of the objects' pixels, float (Q, H, W).

    Returns:
        The objects that are more certain than `THRESHOLD`, at most Q.
    """
    likely, which = classes.softmax(-1)[:, :-1].flatten().topk(len(classes))
    logits = masks[which // len(CLASSES)]
    inside = logits > 0
    sure = (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    scores = (likely * sure).tolist()
    names = [CLASSES[label] for label in (which % len(CLASSES)).tolist()]
    return [
        Found(name, score, _box(mask), mask)
        for name, score, mask in zip(names, scores, inside, strict=True)
        if score > THRESHOLD
    ]


def _box(mask: Tensor) -> Box:
    """Return the box around a mask (H, W) that is not empty."""
    across, down = mask.any(0).nonzero(), mask.any(1).nonzero()
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def _check(folder: Path, shapes: Collection[tuple[int, ...]]) -> None:
    """Check that a folder's config.json is that of a Mask2Former."""
    file = folder / "config.json"
    found = read_object(file, f"folder {folder}").get("model_type")
    if found != KIND:
        raise UserError(f"{file}: model_type is {found!r}, not {KIND!r}; name a Mask2Former")
