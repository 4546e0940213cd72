"""Generators of cascades: the parts in a row, a part on pixels, and the upsampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.cascade import LEVEL, PREVIOUS, CascadeGenerator, Enlarging, rounded
from t2i.core.families.continuous import named_schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.augmentation import augmented, enlarged, told_level
from t2i.plugins.common.cascades.config import PixelPart, UpsamplerSettings
from t2i.plugins.common.diffusion.adm.conditional import AdmNetwork
from t2i.plugins.common.diffusion.pixels import PixelGenerator
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.common.diffusion.unet import SENTENCE, conditional_unet

TOLD = "told level"  # the number that the network embeds for LEVEL, in the text's extras
LEVELS = 64  # width of the sinusoids of a level


class CascadeOf(CascadeGenerator):
    """A cascade of given parts.

    Args:
        parts: The generators by name, in the order in which they are sampled. The last one makes
            the images.
    """

    def __init__(self, parts: Mapping[str, Generator]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))
        self.image_size = list(parts.values())[-1].image_size

    def save_assets(self, folder: Path) -> None:
        """Write the files of each part that has any, into a folder of its name."""
        super().save_assets(folder)
        for name in self.parts:
            own = folder / name
            own.mkdir()
            self.part(name).save_assets(own)
            if not any(own.iterdir()):
                own.rmdir()


class PixelPartGenerator(PixelGenerator):
    """A part that denoises pixels.

    Args:
        config: Settings of the part.
        text: Widths of the text features.
        assets: Folder of the part's saved files. None: a new part.
        unet: A network in the place of the U-Net that the settings describe
            (`PixelGenerator.unet`). None: there is none.
    """

    def __init__(
        self, config: PixelPart, text: TextShape, assets: Path | None = None, unet: Any = None
    ) -> None:
        super().__init__(config, text, assets, unet)
        self.schedule = schedule_of(config)
        self.prediction = config.prediction

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self.network(x_t, self.schedule.embedded(t), text)


class LowResUNet(nn.Module):
    """A U-Net whose input has two images, x_t and the smaller one, and that is told its level.

    Args:
        config: Settings of the upsampler.
        text: Widths of the text features.
        assets: Folder of a saved model, as of `conditional_unet`. None: a new one.
    """

    def __init__(
        self, config: UpsamplerSettings, text: TextShape, assets: Path | None = None
    ) -> None:
        super().__init__()
        self.patch, channels = config.patch, config.channels * config.patch**2
        size = config.image_size // config.patch
        self.inner = conditional_unet(config.unet, channels, size, text, assets, more=channels)
        self.sinusoids = Timesteps(LEVELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.level = TimestepEmbedding(LEVELS, 4 * config.unet.channels[0])
        if not config.text and isinstance(self.inner.sentence, nn.Linear):
            self.inner.sentence.weight.requires_grad_(False)  # it is given zeros

    @property
    def step(self) -> int:
        """Height and width of the images may be any multiples of it."""
        return self.patch * self.inner.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute what depends on the text and the level alone.

        Args:
            text: Features of B captions, with `TOLD` among their extras.

        Returns:
            The text, with it among its extras.
        """
        text = self.inner.condition(text)
        level = self.level(self.sinusoids(conditioned(text, TOLD)).to(text.sentence.dtype))
        told = conditioned(text, SENTENCE) + level
        return replace(text, extras={**text.extras, SENTENCE: told})

    def forward(self, x: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's prediction.

        Args:
            x: x_t and the enlarged image, float (B, 6, H, W).
            t: Times (B,), as `Schedule.embedded` returns them.
            text: Conditioned captions.

        Returns:
            The prediction, float (B, 3, H, W).
        """
        output: Tensor = self.inner(F.pixel_unshuffle(x, self.patch), t, text)
        return F.pixel_shuffle(output, self.patch)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...


class LowResAdm(AdmNetwork):
    """ADM's U-Net, whose input has two images, x_t and the smaller one, and that is told its level.

    Args:
        config: Settings of the upsampler, with `adm`.
        text: Widths of the text features.
    """

    def __init__(self, config: UpsamplerSettings, text: TextShape) -> None:
        assert config.adm is not None
        channels = config.channels
        out = 2 * channels if config.learned_range else channels
        read = text if config.text else text._replace(sentence=1)  # 1: it is not read
        super().__init__(config.adm, 2 * channels, out, config.image_size, read)
        self.sinusoids = Timesteps(LEVELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.level = TimestepEmbedding(LEVELS, config.adm.embedding_width)

    def condition(self, text: TextFeatures) -> TextFeatures:
        text = super().condition(text)
        told = self.level(self.sinusoids(conditioned(text, TOLD)).to(text.sentence.dtype))
        if self.sentence is not None:
            told = told + conditioned(text, SENTENCE)
        return replace(text, extras={**text.extras, SENTENCE: told})

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        words, mask = (text.words.mT, text.mask) if self.kv else (None, None)
        output: Tensor = self.unet(x_t, t, conditioned(text, SENTENCE), words, mask)
        return output


class UpsamplerGenerator(Enlarging, PixelGenerator):
    """A diffusion model that enlarges images: eps_theta(x_t, t, y, z, level) on pixels.

    z is the smaller image with the noise of the level. It is enlarged and joins the input. Without
    a smaller image (`PREVIOUS`) the network is given grey and the highest level.

    Args:
        config: Settings of the upsampler.
        text: Widths of the text features.
        assets: Folder of a saved model's files. None: a new one.
        unet: A network in the place of `LowResUNet`, called in the same way. Its `condition` finds
            the number of the level in the extras under `TOLD`. None: there is none.

    Attributes:
        told: Whether the network is told the level, so that noise may be added.
    """

    told: bool = True

    def __init__(
        self,
        config: UpsamplerSettings,
        text: TextShape,
        assets: Path | None = None,
        unet: Any = None,
    ) -> None:
        if unet is None:
            unet = LowResAdm(config, text) if config.adm else LowResUNet(config, text, assets)
        super().__init__(config, text, assets, unet)
        self.learned_range = config.learned_range
        self.config, self.low_size = config, config.low_size
        self.schedule = schedule_of(config)
        self.prediction = config.prediction
        self.levels = named_schedule(config.augmentation_schedule, config.timesteps)

    def check_told(self, level: Tensor | None) -> None:
        """Check that a level of noise may be asked for.

        Args:
            level: The level of each image, (B,). None: the model's own.

        Raises:
            UserError: It is above 0, and the network is not told it.
        """
        if level is not None and not self.told and bool(level.any()):
            raise UserError("augmentation: this upsampler is not told the level: set it to 0")

    def enlarging(
        self, images: Tensor, noise: Noise, level: Tensor | None = None
    ) -> dict[str, Tensor]:
        self.check_told(level)
        low = rounded(images)
        if level is None:
            level = low.new_full((len(low),), self.config.augmentation_sampling)
        eps = noise.normal("augmentation", 0, low.shape[1:])
        return {PREVIOUS: augmented(low, level, eps, self.levels), LEVEL: level}

    def condition(self, text: TextFeatures) -> TextFeatures:
        extras = dict(text.extras)
        if PREVIOUS not in extras:
            side = self.low_size
            extras[PREVIOUS] = text.sentence.new_zeros(len(text), 3, side, side)
            extras[LEVEL] = text.sentence.new_full((len(text),), self.config.augmentation)
        low = extras[PREVIOUS]
        ratio = self.config.ratio_of_sizes
        size = (ratio * low.shape[-2], ratio * low.shape[-1])
        extras[PREVIOUS] = enlarged(low, size, self.config.resize)
        extras[TOLD] = told_level(extras[LEVEL], self.levels)
        if not self.config.text:
            text = replace(
                text,
                sentence=torch.zeros_like(text.sentence),
                words=torch.zeros_like(text.words),
            )
        conditioned_text: TextFeatures = self.unet.condition(replace(text, extras=extras))
        return conditioned_text

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self._outputs(x_t, t, text)[0]

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        if not self.learned_range:
            return super().ranged(x_t, t, text)
        prediction, v = self._outputs(x_t, t, text)
        return prediction, v

    def _outputs(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, ...]:
        """Compute the prediction and, with `learned_range`, v."""
        low = enlarged(conditioned(text, PREVIOUS), (x_t.shape[-2], x_t.shape[-1]))
        output: Tensor = self.unet(torch.cat([x_t, low], 1), self.schedule.embedded(t), text)
        prediction, *v = output.chunk(2, 1) if self.learned_range else (output,)
        return (prediction + low if self.config.residual else prediction, *v)
