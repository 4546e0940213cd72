"""Latents and networks on them for any size of image: what the presets `auto` share.

This module does not import torch.
"""

from __future__ import annotations

from typing import Any

from t2i.plugins.common.sizing import by_memory


def quick_latents(size: int) -> dict[str, Any]:
    """Return settings of a small autoencoder whose latents are at most 16x16.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        Its settings `patch`, `channels` and `latent_channels`.
    """
    reduction = 4
    while size > 16 * reduction:
        reduction *= 2
    return {
        "patch": reduction,
        "channels": (64,) if reduction == 4 else (96,),
        "latent_channels": 8 if reduction < 16 else 16,
    }


def wide_latents(size: int, memory: int) -> dict[str, Any]:
    """Return settings for an accelerator: latents of 16x16 to 64x64, and a wide U-Net.

    Args:
        size: Height and width of the images in pixels.
        memory: Memory of the accelerator in bytes.

    Returns:
        The settings `autoencoder` and `unet`.
    """
    autoencoder = {
        "patch": 2, "channels": (64, 128, 256)[: 1 + (size >= 48) + (size >= 192)], "layers": 2,
        "latent_channels": 4 if size < 192 else 8, "attention": False, "kl_weight": 1e-5,
        "lr": 5e-4, "betas": (0.9, 0.99), "batch_size": 16, "first_logvar": -6.0, "share": 0.2,
    }  # fmt: skip
    levels = (1, 2, 2) if size < 96 else (1, 2, 3) if size < 384 else (1, 2, 3, 4)
    first = "none" if size >= 96 else "cross"
    width = by_memory(memory, (64, 96, 128, 192))
    unet = {
        "channels": tuple(width * n for n in levels), "layers": 2,
        "attention": (first, *(("cross",) * (len(levels) - 1))), "head_width": 32,
        "text_map": 64, "map_hops": 2, "outline": 0.5, "sentence": True,
    }  # fmt: skip
    return {"autoencoder": autoencoder, "unet": unet}
