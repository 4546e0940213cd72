"""ADA (Karras et al. 2020): augmentation whose probability follows the discriminator's overfitting.

The operations are the authors' geometric and colour ones. Images are resampled bilinearly, with
reflection at the borders, not through wavelet filters as in their code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHOICES, UNIFORMS, NORMALS = 13, 7, 8
"""Random numbers that an image needs: for the probabilities, and for the changes."""

INTERVAL = 4
"""Steps between two changes of the probability."""


class AdaptiveAugmentation(nn.Module):
    """Augments images, each operation with probability p, and adapts p.

    Args:
        target: Target of r_t = E[sign D(x)].
        images: Images over which p can rise from 0 to 1.
    """

    p: Tensor
    """Probability of each operation, a scalar buffer, which checkpoints hold."""

    def __init__(self, target: float, images: int) -> None:
        super().__init__()
        self.target, self.images = target, images
        self.register_buffer("p", torch.zeros(()))

    def adapt(self, signs: Tensor, seen: int) -> None:
        """Move p by `seen / images`: up if r_t is above its target, else down; p stays in [0, 1].

        Source: Karras et al. 2020, section 3.1.

        Args:
            signs: Signs of the scores of real images, -1, 0 or 1, of any shape.
            seen: Real images that the discriminator has seen since the last change.
        """
        towards = torch.sign(signs.float().mean() - self.target)
        self.p.add_(towards * seen / self.images).clamp_(0, 1)

    def forward(self, images: Tensor, choices: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
        """Augment images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).
            choices: Numbers from U[0, 1), float (B, `CHOICES`): an operation is applied where
                its number is below p.
            uniform: Numbers from U[0, 1), float (B, `UNIFORMS`).
            normal: Numbers from N(0, 1), float (B, `NORMALS`).

        Returns:
            The images, float (B, 3, H, H), not clamped.
        """
        p = self.p.expand(CHOICES).clone()
        p[4:6] = 1 - (1 - self.p).clamp_min(0).sqrt()  # of two rotations, at least one with p
        on = (choices < p).float()
        moved = _resampled(images, _geometry(on, uniform, normal, images.shape[-1]))
        colours = _colours(on, uniform, normal).to(images.dtype)
        flat = torch.einsum("bij,bjn->bin", colours[:, :3, :3], moved.flatten(2))
        return (flat + colours[:, :3, 3:]).view_as(moved)


def _matrix(n: int, like: Tensor, **entries: Tensor | float) -> Tensor:
    """Return identity matrices (B, n, n) with some entries replaced, such as `r0c2`."""
    made = torch.eye(n, device=like.device).repeat(len(like), 1, 1)
    for place, value in entries.items():
        made[:, int(place[1]), int(place[3])] = value
    return made


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return _matrix(3, x, r0c0=x, r1c1=y)


def _translation(x: Tensor, y: Tensor) -> Tensor:
    return _matrix(3, x, r0c2=x, r1c2=y)


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return _matrix(3, angle, r0c0=c, r0c1=-s, r1c0=s, r1c1=c)


def _geometry(on: Tensor, u: Tensor, n: Tensor, side: int) -> Tensor:
    """Compose the maps (B, 3, 3) from places of the result to places of the image, in [-1, 1].

    They are mirroring, quarter turns, whole-pixel shifts of up to 1/8, scaling by 2^N(0, 0.2^2),
    rotation, stretching by 2^N(0, 0.2^2), another rotation, and shifts by N(0, (1/8)^2).
    """
    mirror = 1 - 2 * on[:, 0] * (u[:, 0] < 0.5)
    turn = on[:, 1] * (4 * u[:, 1]).floor() * (math.pi / 2)
    shift = on[:, 2, None] * ((2 * u[:, 2:4] - 1) / 8 * side).round() * (2 / side)
    scale = torch.exp2(0.2 * on[:, 3] * n[:, 0])
    before, after = (on[:, 4 + i] * (2 * u[:, 4 + i] - 1) * math.pi for i in range(2))
    stretch = torch.exp2(0.2 * on[:, 6] * n[:, 1])
    drift = on[:, 7, None] * n[:, 2:4] / 4  # 1/8 of the side, in units of half a side
    maps = _scaling(mirror, torch.ones_like(mirror)) @ _rotation(turn) @ _translation(*shift.T)
    maps = maps @ _scaling(scale, scale) @ _rotation(before) @ _scaling(stretch, 1 / stretch)
    return maps @ _rotation(after) @ _translation(*drift.T)


def _resampled(images: Tensor, maps: Tensor) -> Tensor:
    """Resample images at mapped places, bilinearly; where nothing moves they stay the same."""
    shape = list(images.shape)
    grid = F.affine_grid(maps[:, :2], shape, align_corners=False)
    moved = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    ).to(images.dtype)
    still = (maps == torch.eye(3, device=maps.device)).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(still, images, moved)


def _colours(on: Tensor, u: Tensor, n: Tensor) -> Tensor:
    """Compose affine maps (B, 4, 4) of colours.

    They are brightness + N(0, 0.2^2), contrast times 2^N(0, 0.5^2), an inverted luma, a rotation of
    the hue, and saturation times 2^N(0, 1).
    """
    shift = 0.2 * on[:, 8] * n[:, 4]
    brightness = _matrix(4, shift, r0c3=shift, r1c3=shift, r2c3=shift)
    gain = torch.exp2(0.5 * on[:, 9] * n[:, 5])
    contrast = _matrix(4, gain, r0c0=gain, r1c1=gain, r2c2=gain)
    grey = torch.tensor([1.0, 1.0, 1.0, 0.0], device=on.device) / math.sqrt(3)
    luma = torch.outer(grey, grey)  # projects colours on the grey axis
    one = torch.eye(4, device=on.device)
    inverted = on[:, 10] * (n[:, 6] < 0)
    flip = one - 2 * luma * inverted.view(-1, 1, 1)
    hue = _hue_rotation(on[:, 11] * (2 * u[:, 6] - 1) * math.pi)
    vivid = torch.exp2(on[:, 12] * n[:, 7]).view(-1, 1, 1)
    saturation = luma + (one - luma) * vivid
    saturation[:, 3, 3] = 1
    return saturation @ hue @ flip @ contrast @ brightness


def _hue_rotation(angle: Tensor) -> Tensor:
    """Return rotations (B, 4, 4) of colours around the grey axis (Rodrigues' formula)."""
    a = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -a, a], [a, 0.0, -a], [-a, a, 0.0]], device=angle.device)
    c, s = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    turn = c * torch.eye(3, device=angle.device) + s * cross + (1 - c) / 3
    made = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    made[:, :3, :3] = turn
    return made
