"""The generators of Imagen: a base model and upsamplers in a row, and their networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.networks import (
    LEVELS,
    TOLD,
    CascadeOf,
    PixelPartGenerator,
    UpsamplerGenerator,
)
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.adm.unet import AdmUNet
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.imagen.config import BasePart, EfficientConfig, ImagenConfig, SuperPart
from t2i.plugins.models.imagen.efficient import EfficientUNet
from t2i.plugins.models.imagen.text import VECTOR, Reading, read


class ReadingNetwork(nn.Module):
    """A U-Net that reads all words, and their pooled vector in its time embedding.

    Args:
        config: Settings of the part.
        network: Settings of the U-Net.
        channels: Channels of input and output.
        text: Widths of the text features.
        told: Whether the network is told the level of the noise in a smaller image.

    Raises:
        UserError: The network reads words of another width.
    """

    def __init__(
        self, config: BasePart | SuperPart, network: AdmConfig | EfficientConfig,
        channels: tuple[int, int], text: TextShape, told: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.step = network.step
        self.unet: AdmUNet | EfficientUNet
        words = config.text_width or text.words
        if isinstance(network, AdmConfig):
            if network.encoder_kv not in (0, words):
                raise UserError(
                    f"adm.encoder_kv = {network.encoder_kv}: words that are read have {words} "
                    f"values; set adm.encoder_kv to that, or text_width to {network.encoder_kv}"
                )
            self.unet = AdmUNet(network, *channels, config.image_size)
            width, self.kv = network.embedding_width, network.encoder_kv > 0
        else:
            self.unet = EfficientUNet(network, *channels, words)
            width, self.kv = self.unet.embedding_width, True
        self.reading = Reading(config, text, width)
        self.sinusoids = Timesteps(LEVELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.level = TimestepEmbedding(LEVELS, width) if told else None

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute what depends on the text, and on the level of noise, alone.

        Args:
            text: Features of B captions.

        Returns:
            The text, with it among its extras.
        """
        text = self.reading(text)
        if self.level is None:
            return text
        vector = conditioned(text, VECTOR)
        told = self.level(self.sinusoids(conditioned(text, TOLD)).to(vector.dtype))
        return replace(text, extras={**text.extras, VECTOR: vector + told})

    def forward(self, x: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's output.

        Args:
            x: Input, float (B, C, h, w).
            t: Timesteps, (B,).
            text: Conditioned captions.

        Returns:
            The output, float (B, C', h, w).
        """
        words, mask, vector = read(text)
        if isinstance(self.unet, EfficientUNet):
            larger: Tensor = self.unet(x, t, vector, words, mask)
            return larger
        kv = (words.mT, mask) if self.kv else (None, None)
        output: Tensor = self.unet(x, t, vector, *kv)
        return output


class BaseGenerator(PixelPartGenerator):
    """The base model.

    Args:
        config: Settings of the part.
        text: Widths of the text features.
        assets: Folder of the part's saved files. None: a new part.
    """

    def __init__(self, config: BasePart, text: TextShape, assets: Path | None = None) -> None:
        channels = (3, 6 if config.learned_range else 3)
        unet = config.adm and ReadingNetwork(config, config.adm, channels, text)
        super().__init__(config, text, assets, unet)
        self.learned_range = config.learned_range

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output = super().forward(x_t, t, text)
        return output.chunk(2, 1)[0] if self.learned_range else output

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        if not self.learned_range:
            return super().ranged(x_t, t, text)
        prediction, v = super().forward(x_t, t, text).chunk(2, 1)
        return prediction, v


class ImagenGenerator(CascadeOf):
    """Imagen.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model's files. None: a new model.
    """

    def __init__(self, config: ImagenConfig, text: TextShape, assets: Path | None = None) -> None:
        parts: dict[str, Generator] = {}
        for name, part in config.parts.items():
            own = assets and assets / name
            if isinstance(part, SuperPart):
                parts[name] = upsampler_of(part, text, own)
            else:
                assert isinstance(part, BasePart)
                parts[name] = BaseGenerator(part, text, own)
        super().__init__(parts)


def upsampler_of(
    config: SuperPart, text: TextShape, assets: Path | None = None
) -> UpsamplerGenerator:
    """Build an upsampler.

    Args:
        config: Its settings.
        text: Widths of the text features.
        assets: Folder of its saved files. None: a new one.

    Returns:
        The upsampler.
    """
    network = config.efficient or config.adm
    if network is None:
        return UpsamplerGenerator(config, text, assets)
    channels = (6, 6 if config.learned_range else 3)
    unet = ReadingNetwork(config, network, channels, text, told=True)
    return UpsamplerGenerator(config, text, assets, unet)
