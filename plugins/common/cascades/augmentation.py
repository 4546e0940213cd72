"""The smaller images that an upsampler is given: noise that is added, and their enlargement.

Source: Ho et al. 2021, Cascaded Diffusion Models, section 4 (conditioning augmentation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.schedule import Schedule, add_noise
from t2i.plugins.common.cascades.config import Resizing


def augmented(low: Tensor, level: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """Add noise to smaller images: z = alpha low + sigma noise, at the time of each level.

    Args:
        low: The smaller images, (B, 3, h, w).
        level: Level of each, (B,) from 0 (unchanged) to 1.
        noise: Noise from N(0, I), (B, 3, h, w).
        schedule: The noise schedule of the levels.

    Returns:
        The images with noise, (B, 3, h, w).
    """
    noisy = add_noise(schedule, low, schedule.time_at(level), noise)
    return torch.where(level.view(-1, 1, 1, 1) > 0, noisy, low)


def told_level(level: Tensor, schedule: Schedule) -> Tensor:
    """Compute the number that a network embeds for a level of noise.

    Args:
        level: Levels, (B,) from 0 to 1.
        schedule: The noise schedule of the levels.

    Returns:
        Numbers, (B,), those that the schedule's times have elsewhere; 0 where there is no noise.
    """
    number = schedule.embedded(schedule.time_at(level)).to(level.dtype)
    return torch.where(level > 0, number, torch.zeros_like(level))


def enlarged(low: Tensor, size: tuple[int, int], resize: Resizing = "bilinear") -> Tensor:
    """Enlarge images, so that they can join the input of a network.

    Args:
        low: Images, (B, C, h, w).
        size: Height and width wanted.
        resize: How.

    Returns:
        The images, (B, C, *size).
    """
    if tuple(low.shape[-2:]) == size:
        return low
    if resize == "nearest":
        return F.interpolate(low, size, mode="nearest")
    if resize == "bicubic":
        return F.interpolate(low, size, mode="bicubic", antialias=True)
    return F.interpolate(low, size, mode="bilinear", align_corners=resize == "corners")
