"""The generators of score-based models: a schedule, and a network that says where the noise is."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import Schedule, like
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.pixels import PixelGenerator
from t2i.plugins.common.latent.space import SpaceGenerator, autoencoder_of
from t2i.plugins.models.scoresde.config import ScoreSDEConfig
from t2i.plugins.models.scoresde.ncsnpp import NCSNpp
from t2i.plugins.models.scoresde.sde import RANGE, paper_time, schedule_of

LAST = 999
"""Factor of the paper's time before a network embeds it."""


class UNetScore(PixelGenerator, SpaceGenerator):
    """A U-Net on pixels behind patches, or on latents.

    Its input is x_t divided by sqrt(alpha^2 + sigma^2), which has about the same size for all noise
    levels. It embeds 999 times the paper's time.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model. None: a new one.
    """

    def __init__(self, config: ScoreSDEConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, text, assets)
        self.autoencoder = autoencoder_of(config.autoencoder, config.image_size, assets)
        self.schedule = schedule_of(config)
        self.prediction = config.prediction

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        norm = like(self.schedule.alpha(t).hypot(self.schedule.sigma(t)), x_t)
        output = self.network(x_t / norm, LAST * paper_time(self.schedule, t), text)
        return output * norm if self.prediction == "v" else output


class PaperScore(DiffusionGenerator):
    """NCSN++ or DDPM++. It computes eps = -sigma s, where s is the score.

    The authors' VE models divide by sigma inside the network, and their VP models outside. Without
    the division both are well conditioned.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: ScoreSDEConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (3, config.image_size, config.image_size)
        self.size_step = 2 ** (len(config.ncsnpp.multipliers) - 1)
        self.schedule: Schedule = schedule_of(config)
        self.prediction = "epsilon"
        self.exploding = config.sde == "ve"
        self.network = NCSNpp(config.ncsnpp, config.image_size, text)

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        # For data x in [0, 1] with noise sigma, the authors' network computes 2 x - 1 first: that
        # is x_t, whose sigma is t = 2 sigma.
        number = t / RANGE if self.exploding else LAST * t
        output: Tensor = self.network(x_t, number, text)
        return -output if self.exploding else output


class DiffusersScore(PixelGenerator):
    """The network of a folder of diffusers' ScoreSdeVePipeline.

    It computes the score of images in [0, 1], already divided by sigma.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model. None: a new one.
    """

    def __init__(self, config: ScoreSDEConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, text, assets)
        self.schedule = schedule_of(config)
        self.prediction = "epsilon"

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        sigma = t / RANGE
        score = self.network((x_t + 1) / RANGE, sigma.to(x_t.dtype), text)
        return -like(sigma, x_t) * score


def build(
    config: ScoreSDEConfig, text: TextShape, assets: Path | None = None
) -> DiffusionGenerator:
    """Build the generator that the settings name.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model. None: a new one.

    Returns:
        The generator.
    """
    if config.network == "ncsnpp":
        return PaperScore(config, text)
    kind = UNetScore if config.network == "unet" else DiffusersScore
    return kind(config, text, assets)
