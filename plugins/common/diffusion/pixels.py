"""Diffusion on pixels or latents: a text-conditional U-Net behind patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import PixelSettings
from t2i.plugins.common.diffusion.unet import conditional_unet
from t2i.plugins.common.weights.diffusers_folders import keep_description


class PixelGenerator(DiffusionGenerator):
    """Base of generators whose network is a U-Net on pixels.

    Squares of `patch` pixels a side become channels of the U-Net's input, and its output is turned
    back into pixels. A subclass sets `schedule` and `prediction`, and calls `network`.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes a U-Net with its own configuration. None: the
            U-Net is built or loaded as `config.unet` says.
        unet: Another network on whole pixels to use in the place of the U-Net behind patches; it
            has the same `condition`, `step` and call. None: there is none.
    """

    def __init__(
        self, config: PixelSettings, text: TextShape, assets: Path | None = None, unet: Any = None
    ) -> None:
        super().__init__()
        self.image_size = config.image_size
        side = config.image_size // config.ratio
        self.noise_shape = (config.channels, side, side)
        self.patch = 1 if unet else config.patch
        self.described = not unet and bool(config.unet.weights)
        channels, size = config.channels * config.patch**2, side // config.patch
        self.unet = unet or conditional_unet(config.unet, channels, size, text, assets)
        self.size_step = config.ratio * self.patch * self.unet.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.unet.condition(text)

    def network(self, x: Tensor, numbers: Tensor, text: TextFeatures) -> Tensor:
        """Call the U-Net.

        Args:
            x: Its input, (B, *noise_shape).
            numbers: What it embeds of the noise level of each image, (B,).
            text: Conditioned captions.

        Returns:
            Its output, (B, *noise_shape).
        """
        output: Tensor = self.unet(F.pixel_unshuffle(x, self.patch), numbers, text)
        return F.pixel_shuffle(output, self.patch)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.described:
            keep_description(self.unet.unet, "unet", folder)
