"""Resampling with filters: insert zeros, pad, filter, keep every n-th place.

`upsample`, `downsample` and `blur` use the filter [1, 3, 3, 1] (Zhang 2019; Karras et al. 2020).
Plain PyTorch: a depthwise convolution, which on a CPU beats pooling, shifted sums and two passes of
four values each (measured).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def upfirdn2d(
    x: Tensor,
    taps: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Upsample with zeros, pad, convolve with a filter, and downsample.

    Args:
        x: Images or features, float (B, C, H, W).
        taps: The filter, float (K,) for one that is used along both axes, or (K, K).
        up: Factor of upsampling. up - 1 zeros follow each pixel.
        down: Factor of downsampling. Every `down`-th pixel is kept, from the first.
        padding: Zeros before and after, along both axes. A negative number crops.
        gain: Factor of the result.

    Returns:
        The result, (B, C, H', W'), where H' = ceil((H up + sum(padding) - K + 1) / down).
    """
    taps = taps.to(x)
    passes = [gain * taps[:, None], taps[None, :]] if taps.dim() == 1 else [gain * taps]
    for kernel in passes:
        x = _filtered(x, kernel, up, down, padding)
    return x


def _filtered(x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int]) -> Tensor:
    """Resample the axes along which a kernel (Kh, Kw) filters; an axis of length 1 is left alone.

    A kernel (1, 1) works along both axes.
    """
    height, width = kernel.shape
    both = height == width
    pads, ups, downs, lengths = [], [], [], []
    for size, taps in ((x.shape[2], height), (x.shape[3], width)):
        works = both or taps > 1
        before, after = padding if works else (0, 0)
        pads.append((before, after))
        ups.append(up if works else 1)
        downs.append(down if works else 1)
        lengths.append(size * ups[-1] + before + after - taps + 1)
    weight = kernel.expand(x.shape[1], 1, height, width)
    if up > 1:
        x = F.conv_transpose2d(x, weight, stride=ups, groups=x.shape[1])
        # Place n of the result is place n + K - 1 - (padding before) of the transposed convolution.
        edges = []
        for axis, taps in ((3, width), (2, height)):
            first = pads[axis - 2][0] - (taps - 1)
            edges += [first, lengths[axis - 2] - x.shape[axis] - first]
        x = F.pad(x, edges)
        return x[:, :, :: downs[0], :: downs[1]] if down > 1 else x
    if all(before == after >= 0 for before, after in pads):
        around = [before for before, _ in pads]
    else:
        x, around = F.pad(x, (*pads[1], *pads[0])), [0, 0]
    return F.conv2d(x, weight.flip(2, 3), stride=downs, padding=around, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Double the height and width. Pixels outside the image count as 0.

    Args:
        x: Images or features, (B, C, H, W).

    Returns:
        The same, (B, C, 2 H, 2 W).
    """
    kernel = 4 * _kernel(x)  # three of four places between the pixels are empty
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """Halve the height and width. Pixels outside the image count as 0.

    Args:
        x: Images or features, (B, C, H, W), with even H and W.

    Returns:
        The same, (B, C, H / 2, W / 2).
    """
    return F.conv2d(x, _kernel(x), stride=2, padding=1, groups=x.shape[1])


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Apply the filter, without resampling.

    Args:
        x: Images or features, (B, C, H, W).
        padding: Zeros on each side.
        gain: Factor of the result.

    Returns:
        The same, (B, C, H + 2 padding - 3, W + 2 padding - 3).
    """
    kernel = _kernel(x) if gain == 1 else gain * _kernel(x)
    return F.conv2d(x, kernel, padding=padding, groups=x.shape[1])


def _kernel(x: Tensor) -> Tensor:
    """Return the filter for each channel of x, (C, 1, 4, 4). Its values sum to 1."""
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps)
    return (kernel / kernel.sum()).expand(x.shape[1], 1, 4, 4)
