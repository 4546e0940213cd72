"""The network of flow matching: a velocity field on pixels or on latents."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.continuous import FlowSchedule
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.unet import PlainUNet, WordUNet, conditional_unet
from t2i.plugins.common.latent.space import SpaceGenerator, autoencoder_of
from t2i.plugins.common.transformer.network import TextTransformer
from t2i.plugins.common.weights.diffusers_folders import keep_description
from t2i.plugins.models.flowmatching.config import FlowMatchingConfig

Network = TextTransformer | WordUNet | PlainUNet
"""The networks that can be chosen."""


class FlowMatchingGenerator(SpaceGenerator):
    """v_theta(x_t, t, y), which predicts dx_t / dt = eps - x_0 on the straight path.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes networks with their own configuration. None:
            they are built or loaded as the settings say.

    Attributes:
        autoencoder: The autoencoder whose latents flow. None: pixels flow.
        network: The network of the velocities.
    """

    def __init__(
        self, config: FlowMatchingConfig, text: TextShape, assets: Path | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (config.channels, config.side, config.side)
        self.schedule, self.prediction = FlowSchedule(), "velocity"
        self.patch = config.patch
        latents = config.autoencoder if config.space == "latents" else None
        self.autoencoder = autoencoder_of(latents, config.image_size, assets)
        channels, size = config.channels * config.patch**2, config.side // config.patch
        self.network: Network = (
            TextTransformer(config.transformer, channels, size, text)
            if config.network == "transformer"
            else conditional_unet(config.unet, channels, size, text, assets)
        )
        self.size_step = config.image_size // size * self.network.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self.velocity(self.network, x_t, t, text)

    def velocity(self, network: Network, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Call a network of this generator's shape, which need not be its own.

        Args:
            network: The network.
            x_t: Noisy images or latents, (B, *noise_shape).
            t: Timestep of each image, (B,), from 0 to 1.
            text: Features of B captions, as the network's `condition` returned them.

        Returns:
            The velocities, (B, *noise_shape).
        """
        output = network(F.pixel_unshuffle(x_t, self.patch), self.schedule.embedded(t), text)
        return F.pixel_shuffle(output, self.patch)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if isinstance(self.network, WordUNet | PlainUNet) and self.config.unet.weights:
            keep_description(self.network.unet, "unet", folder)
