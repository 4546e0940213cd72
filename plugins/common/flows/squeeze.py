"""Reshapings of flows that trade resolution for channels."""

from __future__ import annotations

import torch
from torch import Tensor

CORNERS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Places (row, column) of a square of 2x2 in RealNVP's order: each half is a diagonal."""


def checkered(x: Tensor) -> Tensor:
    """Make channels of 2x2 squares so that each half of the channels is one colour of a chessboard.

    Source: Dinh et al. 2017, figure 3 and section 3.6; the order is that of the authors' code.

    Args:
        x: Values, (B, C, H, W).

    Returns:
        (B, 4 C, H / 2, W / 2): all channels of the upper left places, then of the lower right, the
        upper right and the lower left ones.
    """
    return torch.cat([x[:, :, row::2, column::2] for row, column in CORNERS], 1)


def unchecked(x: Tensor) -> Tensor:
    """Undo `checkered`.

    Args:
        x: Values, (B, 4 C, h, w).

    Returns:
        (B, C, 2 h, 2 w).
    """
    parts = x.chunk(4, 1)
    batch, channels, height, width = parts[0].shape
    out = x.new_empty(batch, channels, 2 * height, 2 * width)
    for (row, column), part in zip(CORNERS, parts, strict=True):
        out[:, :, row::2, column::2] = part
    return out
