"""Random changes of cutouts, made of keyed noise and torch alone.

Every change is differentiable in the pixels, and that of an image depends on its own noise only.
Cutouts are (B n, 3, S, S) in [0, 1], the n cutouts of an image one after the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.noise import Noise
from t2i.plugins.models.clipvqgan.config import AugmentConfig

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""Corners of an image as (x, y), clockwise from the upper left one."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma Y of YIQ."""

YIQ = (GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""Red, green and blue to YIQ, in which a hue is an angle."""


def augmented(cutouts: Tensor, config: AugmentConfig, noise: Noise, step: int) -> Tensor:
    """Change cutouts at random: place, perspective, colours, a rectangle, noise.

    Args:
        cutouts: Cutouts (B n, 3, S, S) in [0, 1].
        config: Which changes, and how large.
        noise: Source of random numbers for B images.
        step: Number of the draw.

    Returns:
        Cutouts of the same shape.
    """
    n = len(cutouts) // len(noise)
    if config.affine:
        draws = noise.uniform("affine", step, (n, 6)).flatten(0, 1)
        padding = "border" if config.border else "zeros"
        cutouts = warped(cutouts, affine_maps(draws, config), padding)
    if config.perspective:
        draws = noise.uniform("perspective", step, (n, 9)).flatten(0, 1)
        cutouts = warped(cutouts, perspective_maps(draws, config), "zeros")
    if config.jitter:
        cutouts = jittered(cutouts, noise.uniform("jitter", step, (n, 5)).flatten(0, 1), config)
    if config.erasing:
        kept = kept_pixels(noise.uniform("erasing", step, (5,)), cutouts.shape[-1], config)
        cutouts = cutouts * kept.repeat_interleave(n, 0)
    if config.noise:
        amount = config.noise * noise.uniform("amount", step, (n, 1, 1, 1)).flatten(0, 1)
        cutouts = cutouts + amount * noise.normal("noise", step, (n, *cutouts.shape[1:])).flatten(
            0, 1
        )
    return cutouts


def affine_maps(draws: Tensor, config: AugmentConfig) -> Tensor:
    """Make random rotations, shifts and shears.

    Args:
        draws: Uniform numbers (N, 6): whether, angle, shift in x and y, shear in x and y.
        config: Probability and largest values.

    Returns:
        Maps from places of the result to places of the source, (N, 3, 3), homogeneous, for
        coordinates from -1 to 1.
    """
    whether, *others = draws.unbind(1)
    on = (whether < config.affine).to(draws)
    angle, x, y, a, b = (on * (2 * draw - 1) for draw in others)
    angle = angle * math.radians(config.degrees)
    x, y = 2 * config.translate * x, 2 * config.translate * y
    a, b = (torch.tan(math.radians(config.shear) * s) for s in (a, b))
    cos, sin = angle.cos(), angle.sin()
    one, none = torch.ones_like(angle), torch.zeros_like(angle)
    # rotation @ shear, where shear = [[1, a], [b, 1]]
    rows = [cos - b * sin, a * cos - sin, x, sin + b * cos, a * sin + cos, y, none, none, one]
    return torch.stack(rows, 1).view(-1, 3, 3)


def perspective_maps(draws: Tensor, config: AugmentConfig) -> Tensor:
    """Make random perspectives, in which each corner moves inwards.

    Args:
        draws: Uniform numbers (N, 9): whether, and how far each corner moves in x and in y.
        config: Probability and largest distortion.

    Returns:
        Maps from places of the result to places of the source, (N, 3, 3), homogeneous.
    """
    on = (draws[:, :1] < config.perspective).to(draws)
    corners = torch.tensor(CORNERS).to(draws).expand(len(draws), 4, 2)
    inwards = config.distortion * (on * draws[:, 1:]).view(-1, 4, 2)
    return homography(corners * (1 - inwards), corners)


def homography(source: Tensor, target: Tensor) -> Tensor:
    """Find the projective maps that take four points to four points.

    Args:
        source: Points (N, 4, 2) as (x, y), no three of them on a line.
        target: Points (N, 4, 2).

    Returns:
        Maps (N, 3, 3), homogeneous, with 1 at the last place.
    """
    x, y = source.unbind(2)
    u, v = target.unbind(2)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    # u (g x + h y + 1) = a x + b y + c, and v (g x + h y + 1) = d x + e y + f
    first = torch.stack([x, y, one, none, none, none, -u * x, -u * y], 2)
    second = torch.stack([none, none, none, x, y, one, -v * x, -v * y], 2)
    equations = torch.cat([first, second], 1).double()
    solved = torch.linalg.solve(equations, torch.cat([u, v], 1).double())
    return torch.cat([solved, torch.ones_like(solved[:, :1])], 1).view(-1, 3, 3).to(source)


def warped(images: Tensor, maps: Tensor, padding: str) -> Tensor:
    """Move the pixels of images, bilinearly.

    Args:
        images: Images (N, C, S, S).
        maps: Maps from places of the result to places of the source, (N, 3, 3), homogeneous, for
            coordinates from -1 (the outer edge of the first pixel) to 1.
        padding: What is beyond the edge: "zeros", or "border" for the edge again.

    Returns:
        Images of the same shape.
    """
    side = images.shape[-1]
    at = (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)
    moved = places @ maps.to(images).mT
    grid = (moved[..., :2] / moved[..., 2:]).view(-1, side, side, 2)
    return F.grid_sample(images, grid, "bilinear", padding, align_corners=False)


def jittered(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order.

    Args:
        images: Images (N, 3, S, S) in [0, 1].
        draws: Uniform numbers (N, 5): whether, and how much of each.
        config: Probability and largest changes.

    Returns:
        Images in [0, 1].
    """
    whether, *others = draws.unbind(1)
    on = (whether < config.jitter).to(draws)
    brightness, contrast, saturation, hue = (
        (on * (2 * draw - 1)).view(-1, 1, 1, 1) for draw in others
    )
    x = images * (1 + config.brightness * brightness)
    x = grey(x).mean((2, 3), keepdim=True).lerp(x, 1 + config.contrast * contrast)
    x = grey(x).lerp(x, 1 + config.saturation * saturation)
    if config.hue:
        x = torch.einsum("nij,njhw->nihw", hue_maps(config.hue * hue.flatten()), x)
    return x.clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """Return the luma of images.

    Args:
        images: Images (N, 3, H, W).

    Returns:
        Luma (N, 1, H, W).
    """
    weights = torch.tensor(GREY).to(images).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def hue_maps(turns: Tensor) -> Tensor:
    """Return linear maps of colours that turn the hue: rotations of I and Q of YIQ.

    Args:
        turns: Turns (N,), as fractions of the colour circle.

    Returns:
        Maps of red, green and blue, (N, 3, 3).
    """
    to = torch.tensor(YIQ, dtype=torch.float64).to(turns.device)
    angle = 2 * math.pi * turns.double()
    cos, sin = angle.cos(), angle.sin()
    one, none = torch.ones_like(cos), torch.zeros_like(cos)
    turn = torch.stack([one, none, none, none, cos, -sin, none, sin, cos], 1).view(-1, 3, 3)
    return (to.inverse() @ turn @ to).to(turns)


def kept_pixels(draws: Tensor, side: int, config: AugmentConfig) -> Tensor:
    """Choose a random rectangle that becomes black, for each image.

    Source: Zhong et al. 2020, Random Erasing: the area is uniform; so is the ratio of the sides, in
    one of [0.3, 1] and [1, 1 / 0.3], each as often.

    Args:
        draws: Uniform numbers (B, 5): whether, area, ratio, x and y.
        side: Height and width of the cutouts in pixels.
        config: Probability and areas.

    Returns:
        1 where pixels stay, 0 where they become black, (B, 1, side, side).
    """
    whether, area, ratio, x, y = draws.unbind(1)
    low, high = config.erased
    area = (low + (high - low) * area) * side**2
    wide = 1 + (1 / 0.3 - 1) * (2 * ratio - 1)
    ratio = torch.where(ratio < 0.5, 0.3 + 0.7 * 2 * ratio, wide)
    height = (area * ratio).sqrt().round().clamp(1, side)
    width = (area / ratio).sqrt().round().clamp(1, side)
    top = (y * (side - height + 1)).floor()
    left = (x * (side - width + 1)).floor()
    at = torch.arange(side, device=draws.device)
    rows = (at >= top[:, None]) & (at < (top + height)[:, None])
    columns = (at >= left[:, None]) & (at < (left + width)[:, None])
    inside = rows[:, :, None] & columns[:, None, :] & (whether < config.erasing)[:, None, None]
    return (~inside).to(draws).unsqueeze(1)
