"""Cutouts: the views of an image that CLIP is shown in a step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.noise import Noise
from t2i.plugins.models.clipvqgan.augment import augmented
from t2i.plugins.models.clipvqgan.config import CutoutsConfig


def cutouts_of(images: Tensor, side: int, config: CutoutsConfig, noise: Noise, step: int) -> Tensor:
    """Take cutouts of images.

    Args:
        images: Images (B, 3, H, H) in [0, 1].
        side: Height and width of a cutout, that of CLIP's input.
        config: Kind, number and random changes.
        noise: Source of random numbers for B images.
        step: Number of the step, under which `noise` is drawn.

    Returns:
        Cutouts (B n, 3, side, side), the n of an image one after the other.
    """
    taken = (
        pooled(images, side, config)
        if config.kind == "latest"
        else squares(images, side, config, noise, step)
    )
    return augmented(taken, config.augment, noise, step)


def pooled(images: Tensor, side: int, config: CutoutsConfig) -> Tensor:
    """Reduce whole images by the mean of average and maximum pooling; all cutouts are the same.

    Args:
        images: Images (B, 3, H, H).
        side: Height and width of a cutout.
        config: Number of cutouts.

    Returns:
        Cutouts (B n, 3, side, side).
    """
    average, largest = F.adaptive_avg_pool2d(images, side), F.adaptive_max_pool2d(images, side)
    return ((average + largest) / 2).repeat_interleave(config.count, 0)


def squares(images: Tensor, side: int, config: CutoutsConfig, noise: Noise, step: int) -> Tensor:
    """Take random squares of images, and resize them.

    The side is u^power (largest - smallest) + smallest, rounded down, with u uniform; all places
    are equally likely.

    Args:
        images: Images (B, 3, H, H).
        side: Height and width of a cutout.
        config: Number and sizes of the squares.
        noise: Source of random numbers for B images.
        step: Number of the draw.

    Returns:
        Cutouts (B n, 3, side, side) in [0, 1].
    """
    whole = images.shape[-1]
    least = min(whole, side) if config.smallest is None else max(1, int(config.smallest * whole))
    u, x, y = noise.uniform("cutouts", step, (config.count, 3)).cpu().double().unbind(2)
    sizes = (u**config.power * (whole - least) + least).long()
    lefts, tops = ((draw * (whole - sizes + 1)).long() for draw in (x, y))
    taken = []
    for row, image in enumerate(images):
        for size, left, top in zip(
            sizes[row].tolist(), lefts[row].tolist(), tops[row].tolist(), strict=True
        ):
            square = image[None, :, top : top + size, left : left + size]
            taken.append(resized(square, side))
    return torch.cat(taken).clamp(0, 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Resize images, bicubic with antialiasing.

    Args:
        images: Images (B, 3, S, S).
        side: Height and width of the result.

    Returns:
        Images (B, 3, side, side), which may exceed the range of the source.
    """
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
