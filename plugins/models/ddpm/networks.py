"""The network of DDPM: a U-Net on pixels with a noise schedule."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.adm.conditional import AdmNetwork
from t2i.plugins.common.diffusion.pixels import PixelGenerator
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.models.ddpm.config import DDPMConfig


class DDPMGenerator(PixelGenerator):
    """eps_theta(x_t, t, y) on pixels (or x_0 or v, as `prediction` says).

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes a U-Net with its own configuration. None: the
            U-Net is built or loaded as `config.unet` says.
    """

    def __init__(self, config: DDPMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, text, assets, adm_network(config, text))
        self.learned_range = config.learned_range
        self.config = config
        self.schedule = schedule_of(config)
        self.prediction = config.prediction

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output = self.network(x_t, self.schedule.embedded(t), text)
        return output.chunk(2, 1)[0] if self.learned_range else output

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        if not self.learned_range:
            return super().ranged(x_t, t, text)
        prediction, v = self.network(x_t, self.schedule.embedded(t), text).chunk(2, 1)
        return prediction, v


def adm_network(config: DDPMConfig, text: TextShape) -> AdmNetwork | None:
    """Build ADM's U-Net, if a model's settings name it.

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Returns:
        The network. None: the settings name none.
    """
    if config.adm is None:
        return None
    out = 2 * config.channels if config.learned_range else config.channels
    return AdmNetwork(config.adm, config.channels, out, config.image_size, text, config.classes)
