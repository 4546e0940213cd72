"""The grid of Gaussian filters through which DRAW reads and writes.

Source: Gregor et al. 2015, section 3.2, in the form of emansim/text2image: their centres are half a
step off, and rows are normalised with 1e-4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Added to the sum that a filter is divided by."""


class Filters(NamedTuple):
    """Filters of B images.

    Attributes:
        rows: Filters over the rows of an image, float (B, N, H).
        columns: Filters over its columns, float (B, N, W).
        gamma: Intensity, float (B, 1).
    """

    rows: Tensor
    columns: Tensor
    gamma: Tensor

    def read(self, images: Tensor) -> Tensor:
        """Read a window of images.

        Args:
            images: float (B, C, H, W).

        Returns:
            The windows, float (B, C, N, N), not multiplied by gamma.
        """
        return self.rows[:, None] @ images @ self.columns[:, None].mT

    def write(self, windows: Tensor) -> Tensor:
        """Place windows on images.

        Args:
            windows: float (B, C, N, N).

        Returns:
            What they add to the images, float (B, C, H, W), not divided by gamma.
        """
        return self.rows[:, None].mT @ windows @ self.columns[:, None]


def filters(parameters: Tensor, n: int, size: int) -> Filters:
    """Make filters of a network's output.

    Args:
        parameters: Column and row of the grid's centre, and the logarithms of step, variance and
            intensity, float (B, 5).
        n: Side of the grid.
        size: Height and width of the images in pixels.

    Returns:
        The filters.
    """
    if parameters.dtype in (torch.bfloat16, torch.float16):
        parameters = parameters.float()
    column, row, log_step, log_variance, log_gamma = parameters.unbind(1)
    step = (size - 1) / (n - 1) * log_step.exp()
    variance = log_variance.exp()[:, None, None]
    place = torch.arange(n).to(parameters) - n // 2 - 0.5
    pixels = torch.arange(size).to(parameters)

    def bank(centre: Tensor) -> Tensor:
        means = (size + 1) / 2 * (centre + 1)
        means = means[:, None] + step[:, None] * place
        weights = (-((pixels - means[..., None]) ** 2) / (2 * variance)).exp()
        return weights / (weights.sum(2, keepdim=True) + TOLERANCE)

    return Filters(bank(row), bank(column), log_gamma.exp()[:, None])
