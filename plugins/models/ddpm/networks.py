"""The network of DDPM: a U-Net on pixels with a noise schedule."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.unet import conditional_unet
from t2i.plugins.common.weights.diffusers_folders import keep_description
from t2i.plugins.models.ddpm.config import DDPMConfig


class DDPMGenerator(DiffusionGenerator):
    """eps_theta(x_t, t, y) on pixels (or x_0 or v, as `prediction` says).

    Squares of `patch` pixels a side become channels of the U-Net's input, and its output is turned
    back into pixels.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes a U-Net with its own configuration. None: the
            U-Net is built or loaded as `config.unet` says.
    """

    def __init__(self, config: DDPMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (3, config.image_size, config.image_size)
        self.schedule = schedule_of(config)
        self.prediction = config.prediction
        self.patch = config.patch
        self.unet = conditional_unet(
            config.unet, 3 * config.patch**2, config.image_size // config.patch, text, assets
        )
        self.size_step = self.patch * self.unet.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.unet.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output = self.unet(F.pixel_unshuffle(x_t, self.patch), self.schedule.embedded(t), text)
        return F.pixel_shuffle(output, self.patch)

    def save_assets(self, folder: Path) -> None:
        if self.config.unet.weights:
            keep_description(self.unet.unet, "unet", folder)
