"""The presets `auto` of upsamplers and of cascades of two parts on pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.plugins.common.cascades.config import SMALL_UPSAMPLER, low_side
from t2i.plugins.common.diffusion.config import SMALL_UNET, WIDE, quick_batch, wide_pixels
from t2i.plugins.common.sizing import by_memory, patch_of


def first_network(size: int, memory: int | None) -> dict[str, Any]:
    """Choose the network of the part that draws small images.

    Args:
        size: Height and width of these images in pixels.
        memory: Memory of the accelerator in bytes. None: the CPU.

    Returns:
        The settings `patch` and `unet`.
    """
    if memory is not None:
        return wide_pixels(size, memory)
    patch = patch_of(size, 16, 2)
    channels = SMALL_UNET["channels"] if patch == 2 else (96, 192)
    return {"patch": patch, "unet": {**SMALL_UNET, "channels": channels}}


def upsampler_network(size: int, memory: int | None) -> dict[str, Any]:
    """Choose the network of a part that enlarges images.

    Args:
        size: Height and width of the enlarged images in pixels.
        memory: Memory of the accelerator in bytes. None: the CPU.

    Returns:
        The settings `patch` and `unet`.
    """
    small: dict[str, Any] = SMALL_UPSAMPLER["unet"]
    if memory is None:
        patch = patch_of(size, 16, 2)
        return {
            "patch": patch,
            "unet": {**small, "channels": small["channels"] if patch == 2 else (96, 192)},
        }
    width = by_memory(memory, (96, 128, 160, 192))
    unet = {
        **small, "channels": (width, 2 * width, 2 * width), "layers": 2,
        "attention": ("none", "none", "none"), "groups": 32,
    }  # fmt: skip
    return {"patch": patch_of(size, 64, 1), "unet": unet}


def sized_cascade(
    small: Mapping[str, Any], first: str, size: int, memory: int | None
) -> dict[str, Any]:
    """Return the settings of a preset `auto`.

    Args:
        small: The settings of the preset `tiny`: a part that draws small images, and `upsampler`.
        first: Name of that part.
        size: Height and width of the images in pixels.
        memory: Memory of the accelerator in bytes. None: the CPU.

    Returns:
        The settings. The sizes of the parts follow from the model's (`with_sizes`).
    """
    engine: dict[str, Any] = {"batch_size": quick_batch(size)}
    rate: dict[str, Any] = {}
    if memory is not None:
        engine = {key: value for key, value in WIDE.items() if key != "lr"}
        rate = {"lr": WIDE["lr"]}
    return {
        **small,
        **engine,
        "image_size": size,
        first: {**small[first], **rate, **first_network(low_side(size), memory)},
        "upsampler": {**small["upsampler"], **rate, **upsampler_network(size, memory)},
    }
