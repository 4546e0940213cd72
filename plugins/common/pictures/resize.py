"""What feature extractors with published weights share: the pictures as their networks want them, and a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(images: Tensor, size: tuple[int, int], mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 (B, 3, *size) in [0, 1]: antialiased and rounded to 8 bits, as Pillow resizes.

    Pictures of that size already are left as they are.
    """
    pictures = images.float()
    if tuple(images.shape[-2:]) != size:
        pictures = F.interpolate(pictures, size, mode=mode, antialias=True, align_corners=False)
        pictures = pictures.round().clamp(0, 255)
    return pictures / 255


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors as they are used, whatever file they came from: names, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
